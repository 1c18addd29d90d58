"""PETs at the embeddings against merged models of transformers, projected embeddings among them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoModel, PreTrainedModel

from messages.task_event import TaskKind
from petstream.benchmarks.dense_task import DenseTask
from tasks.description import Pooling
from tasks.pets.bitfit import BitFit
from tasks.pets.combined import Combined
from tasks.pets.embedding_delta import EmbeddingDelta
from tasks.pets.kinds import AnyPet
from tasks.pets.layer_norm import LayerNormTuning
from tasks.pets.prompt import Prompt
from tasks.pets.random_weights import random_weights
from tests.kept_figures import kept_figures
from tests.workers.dense_reference import merged_model, plain_model, reference_logits
from tests.workers.pets import identity_task, random_task
from tests.workers.tiny_models import SIZES_IN_PACKS, save_random
from workers.backbone import Backbone
from workers.device_copies import DeviceCopies
from workers.engine import Engine, EngineRow
from workers.grouped.on_device import OnDevice
from workers.loaded_task import LoadedTask

CPU = torch.device("cpu")
TOLERANCE = 1e-5
NUM_POSITIONS, SEPARATOR, FIRST_WORD = 48, 5, 6
"""Of the tiny models; an id that stands for their separator, and the first without a meaning."""
ELECTRAS = ("electra", "electra-as-wide")
PLACES = EmbeddingDelta(num_positions=NUM_POSITIONS, num_types=2)
PETS: dict[str, AnyPet] = {
    "words": EmbeddingDelta(),
    "words-and-places": PLACES,
    "norm": LayerNormTuning(sites=("embeddings",)),
    "norm-bias": BitFit(sites=("embeddings", "0.query")),
    "prompt": Prompt(num_tokens=4),
    "prompt-after-cls": Prompt(num_tokens=4, place="after_cls", pools_own=False),
    "prompt-last": Prompt(num_tokens=3, place="last"),
    "prompt-hidden": Prompt(num_tokens=4, enters="hidden"),
    "prompt-and-places": Combined(parts=(Prompt(num_tokens=4), PLACES)),
    "prompt-last-and-places": Combined(parts=(PLACES, Prompt(num_tokens=3, place="last"))),
    "prompt-hidden-and-places": Combined(parts=(Prompt(num_tokens=4, enters="hidden"), PLACES)),
    "prompt-and-norm": Combined(
        parts=(Prompt(num_tokens=4), LayerNormTuning(sites=("embeddings",)), PLACES)
    ),
}
PROJECTION_PETS: dict[str, AnyPet] = {
    "projection": EmbeddingDelta(has_projection=True),
    "projection-and-prompt": Combined(
        parts=(
            Prompt(num_tokens=4),
            EmbeddingDelta(num_positions=NUM_POSITIONS, num_types=2, has_projection=True),
        )
    ),
    "projection-and-prompt-hidden": Combined(
        parts=(Prompt(num_tokens=4, enters="hidden"), EmbeddingDelta(has_projection=True))
    ),
}


@dataclass(frozen=True, slots=True)
class Models:
    """A model of transformers, and the engines on the same weights."""

    plain: PreTrainedModel
    engine: Engine
    on_device: Engine

    def load(self, task: DenseTask, engine: Engine) -> LoadedTask:
        """Take a task to one of the engines."""
        loaded = task.load(engine)
        return loaded if engine is self.engine else DeviceCopies(engine.backbone, CPU).of(loaded)


@pytest.fixture(scope="module", params=["bert", *ELECTRAS])
def models(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Embeddings as wide as the layers, and projected ones."""
    return load_models(request.param, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def projected(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Embeddings of 16 values before layers of 64."""
    return load_models("electra", tmp_path_factory.mktemp("model"))


def load_models(variant: str, folder: Path) -> Models:
    save_random(AutoModel, variant, folder, sizes=SIZES_IN_PACKS | widths(variant))
    backbone = Backbone.load(folder)
    on_device = Engine(backbone, precisions=("float32",), on_device=OnDevice(CPU))
    return Models(
        plain_model(folder), Engine(backbone, threads=1, figures_file=kept_figures()), on_device
    )


def widths(variant: str) -> dict[str, int]:
    return {"embedding_size": 64} if variant == "electra-as-wide" else {}


def task_with(pet: AnyPet, models: Models, pooling: Pooling, seed: int = 0) -> DenseTask:
    """Return a random task of pairs whose every tensor counts."""
    shape = models.engine.backbone.shape
    kind: TaskKind = "tagging" if pooling == "none" else "single_label"
    task = random_task("bitfit", shape, seed=seed, kind=kind, pooling=pooling, takes_pair=True)
    dense = random_weights(pet, shape, np.random.default_rng(seed), density=0.5)
    return replace(task, pet=pet, dense={name: 3 * values for name, values in dense.items()})


def pairs() -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield rows and the types of their tokens."""
    rng = np.random.default_rng(3)
    for first, second in ((2, 1), (11, 4), (5, 20), (1, 8)):
        parts = rng.integers(FIRST_WORD, 60, first), rng.integers(FIRST_WORD, 60, second)
        ids = np.array([3, *parts[0], SEPARATOR, *parts[1], SEPARATOR])
        yield ids, np.array([0] * (first + 2) + [1] * (second + 1))


def check_against_transformers(pet: AnyPet, models: Models, pooling: Pooling) -> None:
    """Check two tasks in one batch with rows of the plain backbone between and behind them."""
    tasks = [task_with(pet, models, pooling, seed) for seed in (0, 1)]
    merged = [merged_model(models.plain, task) for task in tasks]
    rows = list(pairs())
    for engine in (models.engine, models.on_device):
        loaded = [models.load(task, engine) for task in tasks]
        batch = [EngineRow(task, ids) for ids, _ in rows for task in (*loaded, identity(models))]
        found = iter(engine.run(batch))
        for ids, types in rows:
            for task, model in zip(tasks, merged, strict=True):
                expected = reference_logits(model, task, ids, types)
                assert np.abs(next(found) - expected).max() < TOLERANCE
                bare = reference_logits(models.plain, without_pet(task), ids, types)
                assert np.abs(expected - bare).max() > 1000 * TOLERANCE
            next(found)


def identity(models: Models) -> LoadedTask:
    return identity_task(models.engine, takes_pair=True)


def without_pet(task: DenseTask) -> DenseTask:
    return replace(task, pet=BitFit(sites=()), dense={})


@pytest.mark.parametrize("pooling", ["mean", "cls", "none"])
@pytest.mark.parametrize("variant", PETS)
def test_logits_are_those_of_transformers(models: Models, variant: str, pooling: Pooling) -> None:
    """A prompt's vectors get the places that its virtual tokens have, and the task's deltas."""
    check_against_transformers(PETS[variant], models, pooling)


@pytest.mark.parametrize("variant", PROJECTION_PETS)
def test_the_projection_may_be_the_tasks_own(projected: Models, variant: str) -> None:
    """What comes before it is projected by it; a hidden prompt is not."""
    check_against_transformers(PROJECTION_PETS[variant], projected, "mean")


def test_word_deltas_leave_a_prompt_alone(models: Models) -> None:
    """Whatever id its virtual tokens go by."""
    both = Combined(parts=(Prompt(num_tokens=4), EmbeddingDelta()))
    task = task_with(both, models, "mean")
    name = "parts.1.embeddings.words"
    deltas = np.zeros_like(task.dense[name])
    deltas[:FIRST_WORD] = 1  # the ids of special tokens and of padding, none of them in the row
    changed, plain = (
        replace(task, dense=task.dense | {name: values}) for values in (deltas, 0 * deltas)
    )
    ids = np.arange(FIRST_WORD, 20)

    for engine in (models.engine, models.on_device):
        rows = [EngineRow(models.load(each, engine), ids) for each in (changed, plain)]
        first, second = engine.run(rows)
        assert np.array_equal(first, second)
