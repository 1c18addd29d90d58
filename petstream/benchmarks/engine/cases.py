"""What is measured: backbones, lengths, numbers of tasks, and which systems run them.

No torch and no pydantic: the peers' environments read this too.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Dtype = Literal["float32", "bfloat16"]
Pooling = Literal["mean", "cls"]
"""Of a row's last states its head reads their mean, or the first one."""

NUM_LABELS = 7
NUM_ROWS = 64
"""Queries of a case, or one for each task where there are more tasks."""
DISTINCT_WEIGHTS = 4
"""Sets of PET weights, and so of merged models, in memory: tasks use them in turn.

Four encoders of the smaller shape take 42 MB each, four of the larger 340 MB: together they fit no
cache level, which is all that more of them could change. 64 whole models would not fit the memory.
"""
LORA_RANK, LORA_ALPHA = 8, 16
BOTTLENECK = 64

LORA = ("lora-query-value",)
LORA_ALL_LINEAR = ("lora-all-linear",)
ADAPTER = ("adapter",)
PETS_MIX = ("mask", "diff", "bitfit", "adapter")
"""The four kinds of the PetS paper."""
KINDS = ("lora-query-value", "lora-all-linear", "bitfit", "ia3", "adapter", "diff", "mask")
ALL_PETS = (*((kind,) for kind in KINDS), PETS_MIX)
"""Each kind alone, and the mix."""
MERGEABLE = tuple(kind for kind in KINDS if kind != "adapter")
"""Kinds that can be written into a backbone's weights."""

LIBRARY_OF = {
    "ours": "petstream_engine",
    "bare": "petstream_engine",
    "seqs": "petstream_engine",
    "pars": "petstream_engine",
    "gemm": "petstream_engine",
    "transformers-rows": "transformers_models",
    "transformers-padded": "transformers_models",
    "transformers-sorted-8": "transformers_models",
    "peft-padded": "peft_adapters",
    "peft-sorted-8": "peft_adapters",
    "peft32-padded": "peft_adapters",
    "adapterhub-padded": "adapterhub",
    "onnxruntime-rows": "onnxruntime_models",
    "onnxruntime-sorted-8": "onnxruntime_models",
    "openvino-rows": "openvino_models",
    "openvino-sorted-8": "openvino_models",
}
"""System -> the module of `systems/` that runs it; what follows the dash is how it batches."""
REFERENCE = "transformers-rows"
"""What every other system is held to: merged models, row by row, nothing padded."""
WITHOUT_ANSWERS = ("bare", "gemm")
"""What no task's answer comes from, so that there is nothing to check."""
FLOAT32_SYSTEMS = ("peft32-padded",)
"""What runs in float32 in a bfloat16 case: PEFT as a user runs it who changed no type."""
FLOAT32_LIBRARIES = ("onnxruntime_models",)
"""ONNX Runtime's CPU kernels of these models have no bfloat16."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A backbone's dimensions; weights from the catalogue, or random ones where it has none."""

    name: str
    layers: int
    hidden: int
    heads: int
    intermediate: int
    vocabulary: int = 30522
    from_catalogue: bool = False

    def gigaflop(self, lens: Sequence[int]) -> float:
        """Return the useful work of unpadded rows: linear products, and attention's two."""
        linear = 2 * (4 * self.hidden**2 + 2 * self.hidden * self.intermediate)
        attention = 4 * self.hidden * sum(length**2 for length in lens)
        return self.layers * (linear * sum(lens) + attention) / 1e9


MINILM = Shape("minilm-l6", 6, 384, 12, 1536, from_catalogue=True)
BERT_BASE = Shape("bert-base", 12, 768, 12, 3072)


@dataclass(frozen=True, slots=True)
class LengthMix:
    """How many tokens rows have."""

    name: str
    distribution: Literal["uniform", "normal"]
    first: int
    """The least length, or the mean."""
    second: int
    """The greatest length, or the standard deviation."""

    def draw(self, rng: np.random.Generator, num_rows: int) -> NDArray[np.int64]:
        """Draw lengths, shape (num_rows,); normal ones are kept within 4 and 128."""
        if self.distribution == "uniform":
            return rng.integers(self.first, self.second + 1, num_rows)
        drawn = rng.normal(self.first, self.second, num_rows)
        return np.clip(np.rint(drawn).astype(np.int64), 4, 128)


U32_128 = LengthMix("u32-128", "uniform", 32, 128)
N32_8 = LengthMix("n32-8", "normal", 32, 8)
U8_32 = LengthMix("u8-32", "uniform", 8, 32)
U4_8 = LengthMix("u4-8", "uniform", 4, 8)
U64_128 = LengthMix("u64-128", "uniform", 64, 128)
"""At least 64 tokens for each row, and so for each task."""
MIXES = (U32_128, N32_8, U8_32, U4_8)
NUM_TASKS = (1, 4, 16, 64, 256)


@dataclass(frozen=True, slots=True)
class Case:
    """One table: the systems named run the same rows of the same tasks."""

    shape: Shape
    mix: LengthMix
    tasks: int
    pets: tuple[str, ...]
    """Kinds of the tasks' PETs, in turn."""
    systems: tuple[str, ...]
    rows: int = NUM_ROWS
    threads: int = 1
    dtype: Dtype = "float32"
    pooling: Pooling = "mean"

    @property
    def label(self) -> str:
        """Return its name: shape/mix/tasks/pets/threads/dtype, and the pooling if not the mean."""
        pets = "pets-mix" if self.pets == PETS_MIX else "+".join(self.pets)
        name = f"{self.shape.name}/{self.mix.name}/{self.tasks}/{pets}/{self.threads}t/{self.dtype}"
        return name if self.pooling == "mean" else f"{name}/{self.pooling}"


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The queries of a case; rows of a task stand together."""

    token_ids: tuple[NDArray[np.int64], ...]
    tasks: tuple[int, ...]
    """Each row's task, ascending."""


def draw_rows(case: Case) -> Rows:
    """Draw the rows of a case: as many of each task, lengths by its mix, always the same."""
    rng = np.random.default_rng(5)
    lens = case.mix.draw(rng, case.rows)
    special = min(1000, case.shape.vocabulary // 2)
    return Rows(
        token_ids=tuple(rng.integers(special, case.shape.vocabulary, n) for n in lens),
        tasks=tuple(sorted(number % case.tasks for number in range(case.rows))),
    )


_PACKED = ("ours", "bare")
_MERGED = (
    *("transformers-padded", "transformers-sorted-8"),
    *("onnxruntime-rows", "onnxruntime-sorted-8", "openvino-rows", "openvino-sorted-8"),
)
_EVERYONE = (
    *(*_PACKED, "seqs", "pars", *_MERGED),
    *("peft-padded", "peft-sorted-8", "adapterhub-padded"),
)


def lora_case(mix: LengthMix, tasks: int, *others: str) -> Case:
    """Return LoRA at query and value beside merged models and others, one thread."""
    systems = (*_PACKED, *_MERGED, *others)
    return Case(MINILM, mix, tasks, LORA, systems, max(NUM_ROWS, tasks))


def kind_case(shape: Shape, mix: LengthMix, tasks: int, pets: tuple[str, ...]) -> Case:
    """Return a kind against the bare backbone, a row to a task; one case has the ceiling beside."""
    ceiling = ("gemm",) if pets == LORA and mix is U64_128 else ()
    return Case(shape, mix, tasks, pets, (*_PACKED, *ceiling), rows=tasks)


def short_cases() -> list[Case]:
    """Return the cases of most goals, on one thread: under ten minutes on two slow cores."""
    return [
        lora_case(U32_128, 64, "peft-padded"),
        Case(MINILM, U32_128, 64, ADAPTER, ("ours", "adapterhub-padded")),
        lora_case(N32_8, 64, "seqs"),
        *(lora_case(mix, 64) for mix in (U8_32, U4_8)),
        *(kind_case(MINILM, U64_128, 16, pets) for pets in ALL_PETS if pets != LORA_ALL_LINEAR),
        Case(BERT_BASE, U64_128, 1, LORA, ("bare", "gemm"), rows=8),
    ]


def full_cases() -> list[Case]:
    """Return every case in float32: hours on a fast machine, most of a day on a slow one."""
    return [
        case
        for threads in (1, 2)
        for shape in (MINILM, BERT_BASE)
        for case in (*_grid(shape, threads), *_kind_grid(shape))
        if threads == 1 or case.mix is not U64_128
    ]


def in_bfloat16(cases: Sequence[Case]) -> list[Case]:
    """Return the same cases for the systems that can run in bfloat16."""
    found = []
    for case in cases:
        systems = tuple(s for s in case.systems if LIBRARY_OF[s] not in FLOAT32_LIBRARIES)
        if "peft-padded" in systems:
            systems += FLOAT32_SYSTEMS
        found.append(replace(case, systems=systems, dtype="bfloat16"))
    return found


def _grid(shape: Shape, threads: int) -> Iterator[Case]:
    systems = tuple(s for s in _EVERYONE if s != "pars" or threads > 1)
    for mix in MIXES:
        for tasks in NUM_TASKS:
            rows = max(NUM_ROWS, tasks)
            yield Case(shape, mix, tasks, LORA, systems, rows, threads)
    for tasks in (4, 16, 64):
        adapter_systems = ("ours", "bare", "adapterhub-padded")
        yield Case(shape, U32_128, tasks, ADAPTER, adapter_systems, NUM_ROWS, threads)
        all_linear = ("ours", "bare", "seqs", "peft-padded")
        yield Case(shape, U32_128, tasks, LORA_ALL_LINEAR, all_linear, NUM_ROWS, threads)
    for mix in MIXES:
        first_read = (*_PACKED, "seqs", *_MERGED, "peft-padded")
        yield Case(shape, mix, 64, LORA, first_read, NUM_ROWS, threads, pooling="cls")


def _kind_grid(shape: Shape) -> Iterator[Case]:
    for tasks in (16, 64):
        yield from (kind_case(shape, U64_128, tasks, pets) for pets in ALL_PETS)
