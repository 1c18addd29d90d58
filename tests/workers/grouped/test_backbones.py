"""Other families and activations on a device, and those that kernels cannot run."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModel

from tests.kept_figures import kept_figures
from tests.workers.grouped.ways import cuda, distance, on_device_engine, token_ids
from tests.workers.pets import identity_task, random_task
from tests.workers.tiny_models import SIZES_IN_PACKS, save_random
from workers.backbone import Backbone
from workers.device_copies import DeviceCopies
from workers.engine import Engine, EngineRow
from workers.errors import BackboneUnsupportedError
from workers.grouped.on_device import OnDevice
from workers.loaded_task import LoadedTask
from workers.precision import Precision

CPU = torch.device("cpu")
VARIANTS = (
    "bert",
    "bert-relu-one-type",
    "bert-gelu-new-one-head",
    "distilbert-silu",
    "roberta",
    "electra",
    "mpnet",
    "mpnet-long",
)
"""Each family, activation, projected embeddings, and relative attention of long rows."""
TOLERANCES = {"cpu": 1e-5, "cuda": 1e-4}
MAX_ROUNDING = 0.1
"""Of the standard deviation of the float32 values, which are of a random model of width 64."""
LENGTHS = (5, 1, 46, 2, 17)


@dataclass(frozen=True, slots=True)
class Pair:
    """The CPU engine and one on a device, on the same weights."""

    cpu: Engine
    on_device: Engine
    device: torch.device

    def put(self, task: LoadedTask) -> LoadedTask:
        """Return the task on the device."""
        return DeviceCopies(self.cpu.backbone, self.device).of(task)


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Each device in turn."""
    return cuda() if request.param == "cuda" else CPU


@pytest.fixture(scope="module", params=VARIANTS)
def pair(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    device: torch.device,
) -> Iterator[Pair]:
    """Engines on each tiny model in turn."""
    sizes = dict(SIZES_IN_PACKS)
    if request.param == "bert-gelu-new-one-head":
        del sizes["num_attention_heads"]
    if request.param == "distilbert-silu":
        sizes["hidden_dim"] = sizes.pop("intermediate_size")
    folder = tmp_path_factory.mktemp("model")
    backbone = Backbone.load(save_random(AutoModel, request.param, folder, sizes=sizes))
    made = Pair(
        Engine(backbone, threads=1, figures_file=kept_figures()),
        on_device_engine(backbone, OnDevice(device)),
        device,
    )
    yield made
    made.cpu.close()
    made.on_device.close()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_plain_backbone(pair: Pair, precision: Precision) -> None:
    """Every token's state, of rows from one token to nearly the longest, in one batch."""
    longest = pair.cpu.backbone.shape.max_positions
    ids = [token_ids(length, length, vocab_size=60) for length in (*LENGTHS, longest)]
    plain = identity_task(pair.cpu)
    task = replace(pair.put(plain), precision=precision)

    found = pair.on_device.run([EngineRow(task, row) for row in ids])

    for own, expected in zip(
        found, pair.cpu.run([EngineRow(plain, row) for row in ids]), strict=True
    ):
        limit = TOLERANCES[pair.device.type]
        if precision == "bfloat16":
            limit = MAX_ROUNDING * float(expected.std())
        assert 0 < distance(own, expected) < limit


@pytest.mark.parametrize("variant", ["ia3", "houlsby", "lora", "mask", "prefix", "prompt-hidden"])
def test_tasks_on_it(pair: Pair, variant: str) -> None:
    """Scales behind each activation, adapters, prefixes beside a bias of scores, and prompts."""
    task = random_task(variant, pair.cpu.backbone.shape)
    ids = [token_ids(length, length, vocab_size=60) for length in (5, 1, 33)]
    loaded = pair.put(task.load(pair.on_device))

    found = pair.on_device.run([EngineRow(loaded, row) for row in ids])

    own = task.load(pair.cpu)
    expected = pair.cpu.run([EngineRow(own, row) for row in ids])
    assert max(map(distance, found, expected)) < TOLERANCES[pair.device.type]


@pytest.mark.parametrize(
    ("sizes", "width"),
    [({"hidden_size": 64, "num_attention_heads": 4}, 100), ({"hidden_size": 84}, 84)],
)
def test_rows_that_kernels_cannot_read_are_refused(
    tmp_path: Path, sizes: dict[str, int], width: int
) -> None:
    """With the size, and what to do."""
    backbone = Backbone.load(save_random(AutoModel, "bert", tmp_path, sizes=sizes))

    with pytest.raises(BackboneUnsupportedError) as caught:
        on_device_engine(backbone, OnDevice(CPU))

    assert str(caught.value) == (
        f"{backbone.name} has rows of {width} values; grouped operators need multiples of 8: "
        "run it with --device cpu"
    )
