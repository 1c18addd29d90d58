"""The pass with the kernels themselves, emulated, on a tiny model: the papers' kinds."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from transformers import AutoModel

from gpu_ops.grouped.kernel_file import KERNELS, Kernel, KernelFile, Kernels
from tests.gpu_ops.grouped.backend import emulated_backend
from tests.gpu_ops.grouped.conftest import ORDERS
from tests.kept_figures import kept_figures
from tests.workers.grouped.ways import answers, distance, on_device_engine, token_ids
from tests.workers.pets import PAPERS_PETS, random_task
from tests.workers.tiny_models import SIZES_IN_PACKS, save_random
from workers.backbone import Backbone
from workers.engine import Engine, EngineRow
from workers.grouped import placed_operators
from workers.grouped.on_device import OnDevice
from workers.precision import Precision

CPU = torch.device("cpu")
TOLERANCE = 1e-5
MAX_ROUNDING = 0.1
"""Of the standard deviation of the float32 logits, which are of a random model of width 64."""
FEW, SOME, MANY = (3,), (7, 9), (40,)
"""Tokens of a task's rows: by rows, in small tiles, in large ones."""
ALWAYS = {"bias_gelu", "layer_norm", "ragged_head"}
FILES: Mapping[str, set[str]] = {
    "lora": {"low_rank"},
    "lora-query-value": {"low_rank"},
    "ia3": set(),
    "bitfit": set(),
    "houlsby": {"bottleneck"},
    "pfeiffer": {"bottleneck"},
    "mask": {"masked_product"},
    "diff": {"sparse_delta"},
}
"""What a batch of one kind launches besides."""


class NotedKernels:
    """Kernels, and which were asked for."""

    def __init__(self, kernels: Kernels) -> None:
        self._kernels = kernels
        self.files: set[str] = set()
        self.names: set[str] = set()

    def get(self, file: KernelFile, name: str) -> Kernel:
        """Return an instance: operators launch what they ask for."""
        self.files.add(file.name)
        self.names.add(name)
        return self._kernels.get(file, name)


@pytest.fixture(autouse=True)
def _few_tasks_stand_for_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the rows of one task decide about tiles, not how many tasks there are."""
    monkeypatch.setattr(placed_operators, "BUSY_BLOCKS", 1)
    monkeypatch.setattr(placed_operators, "LARGE_TILE_BLOCKS", 1)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """A tiny random BERT."""
    folder = tmp_path_factory.mktemp("bert")
    return Backbone.load(save_random(AutoModel, "bert", folder, sizes=SIZES_IN_PACKS))


@pytest.fixture(scope="module")
def cpu_engine(backbone: Backbone) -> Iterator[Engine]:
    """The CPU engine on it."""
    engine = Engine(backbone, threads=1, figures_file=kept_figures())
    yield engine
    engine.close()


@pytest.fixture(scope="module", params=ORDERS, ids=lambda order: f"order{order}")
def kernels(request: pytest.FixtureRequest) -> NotedKernels:
    """The emulator, lanes in each order in turn."""
    emulated = emulated_backend(request.param).kernels
    assert emulated is not None
    return NotedKernels(emulated)


@pytest.fixture(scope="module")
def emulated(backbone: Backbone, kernels: NotedKernels) -> Iterator[Engine]:
    """An engine that runs by emulated kernels."""
    engine = on_device_engine(backbone, OnDevice(CPU, kernels=kernels))
    yield engine
    engine.close()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("variant", "lengths"),
    [
        *((variant, SOME) for variant in PAPERS_PETS),
        ("lora", FEW),
        *((variant, MANY) for variant in ("lora", "houlsby", "mask")),
    ],
)
def test_every_kind_of_the_papers(
    cpu_engine: Engine,
    emulated: Engine,
    kernels: NotedKernels,
    variant: str,
    lengths: tuple[int, ...],
    precision: Precision,
) -> None:
    """Rows of one task, launched by the kernels that its kind needs and no others."""
    task = random_task(variant, cpu_engine.backbone.shape)
    expected = answers(cpu_engine, task.load(cpu_engine), lengths, vocab_size=60)
    kernels.files.clear()

    found = answers(emulated, task.load(emulated, precision), lengths, vocab_size=60)

    limit = TOLERANCE if precision == "float32" else MAX_ROUNDING * float(expected.std())
    assert distance(found, expected) < limit
    assert kernels.files == ALWAYS | FILES[variant]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_all_of_them_in_one_batch(
    cpu_engine: Engine, emulated: Engine, precision: Precision
) -> None:
    """Two tasks of a kind, of different numbers of labels, and one that tags."""
    shape = cpu_engine.backbone.shape
    tasks = [
        random_task(variant, shape, seed=seed, num_labels=2 + seed)
        for seed, variant in enumerate([*PAPERS_PETS, *PAPERS_PETS])
    ]
    tasks.append(random_task("lora", shape, kind="tagging", pooling="none"))
    ids = [token_ids(seed, 1 + 5 * seed % 37, 60) for seed in range(len(tasks))]

    found, expected = (
        engine.run(
            [EngineRow(task.load(engine, of), row) for task, row in zip(tasks, ids, strict=True)]
        )
        for engine, of in ((emulated, precision), (cpu_engine, None))
    )

    for logits, own in zip(found, expected, strict=True):
        limit = TOLERANCE if precision == "float32" else MAX_ROUNDING * float(own.std())
        assert distance(logits, own) < limit


def test_both_regimes_of_low_ranks_and_both_sizes_of_tiles(
    cpu_engine: Engine, emulated: Engine, kernels: NotedKernels
) -> None:
    """By how many tokens a task has in a batch."""
    task = random_task("lora", cpu_engine.backbone.shape).load(emulated)
    launched = []
    for lengths in (FEW, SOME, MANY):
        kernels.names.clear()
        answers(emulated, task, lengths, vocab_size=60)
        first = ("low_rank_shrink", "low_rank_small")
        launched.append({name for name in kernels.names if name.startswith(first)})

    assert launched == [
        {"low_rank_shrink_rows<float>"},
        {"low_rank_small_tiles<float>"},
        {"low_rank_shrink_tiles<float>"},
    ]


def test_scales_behind_other_activations(tmp_path: Path, kernels: NotedKernels) -> None:
    """GELU's pass scales too; behind another activation a kernel of its own does, the last one."""
    backbone = Backbone.load(
        save_random(AutoModel, "bert-relu-one-type", tmp_path, sizes=SIZES_IN_PACKS)
    )
    cpu_engine = Engine(backbone, threads=1, figures_file=kept_figures())
    engine = on_device_engine(backbone, OnDevice(CPU, kernels=kernels), ("float32",))
    task = random_task("ia3", backbone.shape)
    kernels.files.clear()

    found = answers(engine, task.load(engine), SOME, vocab_size=60)

    assert distance(found, answers(cpu_engine, task.load(cpu_engine), SOME, vocab_size=60)) < 1e-5
    assert kernels.files == ALWAYS | {"scale"}
    every_file = {path.stem for path in KERNELS.glob("*.cu")}
    assert every_file == ALWAYS.union(*FILES.values()) | {"scale"}
    for one in (engine, cpu_engine):
        one.close()
