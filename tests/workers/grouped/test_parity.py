"""The pass on a device against that of the CPU, which is held to transformers elsewhere."""

from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from petstream.benchmarks.dense_task import DenseTask
from tasks.description import Pooling
from tasks.pets.adapter import Adapter
from tasks.pets.bitfit import BitFit
from tasks.pets.combined import Combined
from tasks.pets.diff import Diff
from tasks.pets.ia3 import Ia3
from tasks.pets.lora import Lora
from tasks.pets.mask import Mask
from tasks.pets.part_kinds import AnyPart
from tasks.pets.prefix import Prefix
from tasks.pets.prompt import Prompt
from tests.workers.grouped.ways import Way, answers, distance, task_with, token_ids
from tests.workers.pets import EMBEDDING_HEADS, PETS, random_embedding, random_task
from workers.engine import Engine, EngineRow

LENGTHS = (3, 17, 40)
"""Of rows: by rows, in small tiles and in large ones."""
MAX_ROUNDING = 0.06
"""Of the standard deviation of the float32 logits: what bfloat16 may cost. Most on the CPU was
0.043 from the CPU engine's bfloat16, 0.039 from its float32, which itself is up to 0.03 off."""


@pytest.mark.parametrize("variant", PETS)
def test_every_kind_alone(way: Way, small_engine: Engine, variant: str) -> None:
    """Each option of each kind."""
    task = random_task(variant, small_engine.backbone.shape)

    found = answers(way.engine, way.load(task), LENGTHS)

    expected = answers(small_engine, task.load(small_engine), LENGTHS)
    assert distance(found, expected) < way.float32_tolerance


@pytest.mark.parametrize("variant", PETS)
def test_every_kind_in_bfloat16(
    way: Way, small_engine: Engine, rounded_engine: Engine, variant: str
) -> None:
    """As in float32, and as the CPU in bfloat16, but for rounding."""
    task = random_task(variant, small_engine.backbone.shape)

    found = answers(way.engine, way.load(task, "bfloat16"), LENGTHS)

    full = answers(small_engine, task.load(small_engine), LENGTHS)
    rounded = answers(rounded_engine, task.load(rounded_engine), LENGTHS)
    assert 0 < distance(found, full) < MAX_ROUNDING * full.std()
    assert distance(found, rounded) < MAX_ROUNDING * full.std()


JOINED: dict[str, tuple[AnyPart, ...]] = {
    "mask-gated-lora": (Mask(), Lora(rank=4, alpha=8.0, sites=("1.query",), gated=True)),
    "diff-gated-lora-adapter": (
        Diff(),
        Lora(rank=4, alpha=8.0, sites=("ffn_output",), gated=True),
        Adapter(placement="houlsby", bottleneck=16, activation="relu", own_norms=False),
    ),
    "mask-late-adapter": (
        Mask(),
        Adapter(
            placement="pfeiffer",
            bottleneck=24,
            activation="relu",
            reads="normed",
            own_norms=False,
            leave_out=(1,),
        ),
    ),
    "scale-and-bias": (Ia3(), BitFit(sites=("query", "ffn_output"))),
    "scales-and-adapter": (
        Ia3(output_sites=("key",), input_sites=("0.ffn_output", "attention_output")),
        Adapter(placement="houlsby", bottleneck=8, activation="gelu"),
    ),
    "virtual-tokens": (Prompt(num_tokens=4), Prefix(num_tokens=3), Lora(rank=2, alpha=2.0)),
}
"""Kinds in one task that make torch run what kernels run elsewhere, in some layers or in all."""


@pytest.mark.parametrize("name", JOINED)
def test_kinds_joined_in_one_task(way: Way, small_engine: Engine, name: str) -> None:
    """Beside another task of the same kernels."""
    shape = small_engine.backbone.shape
    tasks = [task_with(Combined(parts=JOINED[name]), shape, 1), random_task("mask", shape)]
    ids = token_ids(7, 19)

    found = way.engine.run([EngineRow(way.load(task), ids) for task in tasks])

    expected = small_engine.run([EngineRow(task.load(small_engine), ids) for task in tasks])
    assert max(map(distance, found, expected)) < way.float32_tolerance


def every_task(engine: Engine) -> list[DenseTask]:
    """Return a task of every variant, tagging tasks, and embeddings with every head."""
    shape = engine.backbone.shape
    return [
        *(
            random_task(variant, shape, seed=seed, num_labels=2 + seed)
            for seed, variant in enumerate(PETS)
        ),
        random_task("diff", shape, seed=50, kind="tagging", pooling="none", num_labels=9),
        random_task("prompt", shape, seed=51, kind="tagging", pooling="none", num_labels=5),
        *(random_embedding(head, shape, variant="houlsby") for head in EMBEDDING_HEADS),
    ]


@pytest.mark.parametrize("seed", [0, 1])
def test_every_kind_in_one_batch(way: Way, small_engine: Engine, seed: int) -> None:
    """All kinds, options and heads, three lengths each, in two orders."""
    tasks = every_task(small_engine)
    pairs = list(product(range(len(tasks)), LENGTHS))
    np.random.default_rng(seed).shuffle(pairs)

    found, expected = (
        engine.run([EngineRow(loaded[task], token_ids(seed, length)) for task, length in pairs])
        for engine, loaded in (
            (way.engine, [way.load(task) for task in tasks]),
            (small_engine, [task.load(small_engine) for task in tasks]),
        )
    )

    assert max(map(distance, found, expected)) < way.float32_tolerance


def test_both_types_in_one_batch(way: Way, small_engine: Engine) -> None:
    """Each row in its own."""
    tasks = every_task(small_engine)[:12]
    ids = token_ids(3, 9)
    expected = small_engine.run([EngineRow(task.load(small_engine), ids) for task in tasks])

    found = way.engine.run(
        [EngineRow(way.load(task, p), ids) for task in tasks for p in ("float32", "bfloat16")]
    )

    for full, rounded, own in zip(found[::2], found[1::2], expected, strict=True):
        assert distance(full, own) < way.float32_tolerance
        assert distance(full, own) < distance(rounded, own)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("head", EMBEDDING_HEADS)
def test_every_head_of_embeddings(
    way: Way, small_engine: Engine, head: str, pooling: Pooling
) -> None:
    """With and without a layer before the output layer, with and without an output layer."""
    task = random_embedding(head, small_engine.backbone.shape, pooling=pooling)

    found = answers(way.engine, way.load(task), LENGTHS)

    expected = answers(small_engine, task.load(small_engine), LENGTHS)
    assert distance(found, expected) < way.float32_tolerance


@pytest.mark.parametrize("variant", ["lora", "prompt"])
def test_every_token_of_tagging_tasks(way: Way, small_engine: Engine, variant: str) -> None:
    """Virtual tokens are left out."""
    task = random_task(
        variant, small_engine.backbone.shape, kind="tagging", pooling="none", num_labels=13
    )

    found = answers(way.engine, way.load(task), LENGTHS)

    expected = answers(small_engine, task.load(small_engine), LENGTHS)
    assert len(found) == 13 * sum(LENGTHS)
    assert distance(found, expected) < way.float32_tolerance


def test_pairs_have_the_second_token_type(way: Way, small_engine: Engine) -> None:
    """As on the CPU, where the type counts."""
    shape = small_engine.backbone.shape
    pair, single = (
        random_task("bitfit", shape, takes_pair=takes_pair) for takes_pair in (True, False)
    )
    ids = np.array([101, 2054, 2003, 102, 2009, 2008, 102])

    def logits(engine: Engine, task: DenseTask) -> NDArray[np.float32]:
        loaded = way.load(task) if engine is way.engine else task.load(engine)
        return engine.run([EngineRow(loaded, ids)])[0]

    expected = logits(small_engine, pair)
    assert distance(logits(way.engine, pair), expected) < way.float32_tolerance
    assert distance(logits(way.engine, single), expected) > 20 * way.float32_tolerance


@pytest.mark.parametrize("num_tokens", [1, 2, 5, 128, 511, 512])
def test_rows_of_any_length(way: Way, small_engine: Engine, num_tokens: int) -> None:
    """One token, and as many as the backbone has positions for, of several kinds at once."""
    variants = ("lora", "mask", "houlsby", "bitfit", "ia3", "prefix", "adapter-norms")
    tasks = [random_task(variant, small_engine.backbone.shape) for variant in variants]
    ids = token_ids(num_tokens, num_tokens)

    found = way.engine.run([EngineRow(way.load(task), ids) for task in tasks])

    expected = small_engine.run([EngineRow(task.load(small_engine), ids) for task in tasks])
    assert max(map(distance, found, expected)) < way.float32_tolerance


def test_more_rows_than_a_pass_takes(
    way: Way, small_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Passes follow each other, and pools serve each of them."""
    monkeypatch.setattr("workers.engine.MAX_PASS_TOKENS", 40)
    variants = ("lora", "mask", "houlsby", "diff", "bitfit", "lora")
    tasks = [
        random_task(variant, small_engine.backbone.shape, seed=seed)
        for seed, variant in enumerate(variants)
    ]
    ids = token_ids(1, 13)

    found = way.engine.run([EngineRow(way.load(task), ids) for task in tasks])

    expected = small_engine.run([EngineRow(task.load(small_engine), ids) for task in tasks])
    assert max(map(distance, found, expected)) < way.float32_tolerance


def test_no_rows_give_no_logits(way: Way) -> None:
    """An empty batch is not an error."""
    assert way.engine.run([]) == []
