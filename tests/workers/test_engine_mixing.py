"""A row's answer is its own: whatever stands beside it, wherever it stands, however it is cut."""

import gc
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from petstream.benchmarks.dense_task import without_pet
from tasks.description import Pooling
from tests.kept_figures import kept_figures
from tests.workers.pets import (
    PETS,
    can_be_empty,
    empty_task,
    random_embedding,
    random_task,
)
from workers.backbone import PRODUCTS, Backbone
from workers.break_even import NEVER
from workers.engine import Engine, EngineRow
from workers.errors import RowError
from workers.loaded_task import LoadedTask
from workers.merged_weights import MIN_USES

TOLERANCE = 1e-5
EMBEDDINGS: dict[str, tuple[str, str, Pooling]] = {
    "embedding-identity": ("identity", "lora", "mean"),
    "embedding-identity-prompt": ("identity", "prompt", "mean"),
    "embedding-identity-cls": ("identity", "prompt-hidden", "cls"),
    "embedding-projection": ("projection", "prefix", "cls"),
    "embedding-activation": ("activation", "houlsby", "mean"),
    "embedding-two-layers": ("two-layers", "diff", "mean"),
}
"""Head, PET and pooling of embeddings; prompts have tokens that the mean leaves out."""


@pytest.fixture(scope="module")
def tasks(small_engine: Engine) -> dict[str, LoadedTask]:
    """A task of every kind and variant, a tagging task, and embeddings."""
    shape = small_engine.backbone.shape
    loaded = {
        variant: random_task(variant, shape, seed=seed, num_labels=2 + seed).load(small_engine)
        for seed, variant in enumerate(PETS)
    }
    loaded["tagging"] = random_task(
        "diff", shape, seed=50, kind="tagging", pooling="none", num_labels=9
    ).load(small_engine)
    for name, (head, variant, pooling) in EMBEDDINGS.items():
        task = random_embedding(head, shape, variant=variant, pooling=pooling)
        loaded[name] = task.load(small_engine)
    return loaded


@pytest.fixture(scope="module")
def second_engine(small_engine: Engine) -> Iterator[Engine]:
    """Another worker's engine on the same backbone, with two threads."""
    engine = Engine(small_engine.backbone, threads=2, figures_file=kept_figures())
    yield engine
    engine.close()


def token_ids(seed: int, num_tokens: int) -> NDArray[np.int64]:
    """Token ids of words."""
    return np.random.default_rng(seed).integers(1000, 30000, num_tokens)


LENGTHS = (1, 12, 61)


@pytest.fixture(scope="module")
def alone(
    small_engine: Engine, tasks: dict[str, LoadedTask]
) -> dict[tuple[str, int], NDArray[np.float32]]:
    """The logits of a row of each task and length, run by itself."""
    return {
        (name, length): small_engine.run([EngineRow(task, token_ids(7, length))])[0]
        for name, task in tasks.items()
        for length in LENGTHS
    }


def distances_in_one_batch(
    engine: Engine,
    tasks: dict[str, LoadedTask],
    alone: dict[tuple[str, int], NDArray[np.float32]],
    batch: list[tuple[str, int]],
) -> list[float]:
    """Return how far the logits of each row of a batch are from those of the row alone."""
    found = engine.run([EngineRow(tasks[name], token_ids(7, length)) for name, length in batch])
    assert [logits.shape for logits in found] == [alone[row].shape for row in batch]
    pairs = zip(found, (alone[row] for row in batch), strict=True)
    return [float(np.abs(logits - own).max()) for logits, own in pairs]


@pytest.mark.parametrize("seed", [0, 1])
def test_rows_of_every_kind_in_one_batch_are_as_alone(
    small_engine: Engine,
    tasks: dict[str, LoadedTask],
    alone: dict[tuple[str, int], NDArray[np.float32]],
    seed: int,
) -> None:
    """All kinds and options, three lengths each, in two orders."""
    batch = list(alone)
    np.random.default_rng(seed).shuffle(batch)

    assert max(distances_in_one_batch(small_engine, tasks, alone, batch)) < TOLERANCE


ROWS = st.tuples(st.sampled_from([*PETS, "tagging", *EMBEDDINGS]), st.sampled_from(LENGTHS))


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(batch=st.lists(ROWS, min_size=1, max_size=12), threads=st.sampled_from([1, 2]))
def test_a_row_is_the_same_alone_and_in_any_batch(
    small_engine: Engine,
    second_engine: Engine,
    tasks: dict[str, LoadedTask],
    alone: dict[tuple[str, int], NDArray[np.float32]],
    batch: list[tuple[str, int]],
    threads: int,
) -> None:
    """Whatever the neighbours, their kinds, order and number, and whichever worker runs it."""
    engine = small_engine if threads == 1 else second_engine

    assert max(distances_in_one_batch(engine, tasks, alone, batch)) < TOLERANCE


@pytest.mark.parametrize("variant", [name for name, pet in PETS.items() if can_be_empty(pet)])
def test_a_pet_that_changes_nothing_is_the_bare_backbone(
    small_engine: Engine, variant: str
) -> None:
    """Zero deltas and factors, scales of one, a gate that is shut: the backbone's own logits."""
    task = empty_task(variant, small_engine.backbone)
    loaded = task.load(small_engine)
    ids = token_ids(7, 12)

    found, bare = (
        small_engine.run([EngineRow(of, ids)])[0] for of in (loaded, without_pet(loaded))
    )

    assert np.abs(found - bare).max() < TOLERANCE


@pytest.mark.parametrize("variant", ["mask", "diff"])
def test_sparse_changes_agree_on_both_sides_of_the_break_even(
    small_engine: Engine, tasks: dict[str, LoadedTask], variant: str
) -> None:
    """Beside the shared product or patched into a copy of the weight, alone or among others."""
    beside, patched = (patching_from(tasks[variant], rows) for rows in (NEVER, 1))
    ids = [token_ids(seed, length) for seed, length in enumerate((5, 100, 1))]
    neighbour = EngineRow(tasks["lora"], token_ids(7, 20))
    plain = small_engine.run([EngineRow(without_pet(beside), row) for row in ids])

    found = [
        small_engine.run([neighbour, *(EngineRow(task, row) for row in ids)])[1:]
        for task in (beside, patched)
    ]

    for one, other, bare in zip(*found, plain, strict=True):
        assert np.abs(one - other).max() < TOLERANCE
        assert np.abs(one - bare).max() > 100 * TOLERANCE


@pytest.mark.parametrize("variant", ["mask", "diff"])
def test_weights_that_are_kept_merged_give_the_same(
    small_engine: Engine, tasks: dict[str, LoadedTask], variant: str
) -> None:
    """From its fifth use on, between tasks whose weights are not kept; both leave together."""
    products = len(PRODUCTS) * small_engine.backbone.shape.num_layers
    engine = Engine(
        small_engine.backbone, threads=1, merged_bytes=1 << 30, figures_file=kept_figures()
    )
    task = keeping_from(random_task(variant, engine.backbone.shape).load(engine), 1)
    patched = [keeping_from(patching_from(tasks[kind], 1), NEVER) for kind in ("mask", "diff")]
    rows = [
        EngineRow(tasks["lora"], token_ids(7, 20)),
        EngineRow(patched[0], token_ids(9, 11)),
        EngineRow(task, token_ids(8, 30)),
        EngineRow(patched[1], token_ids(10, 25)),
    ]
    expected = small_engine.run(rows)
    assert engine.merged.num_bytes == 0

    for _ in range(MIN_USES + 1):
        found = engine.run(rows)

        assert max(np.abs(a - b).max() for a, b in zip(found, expected, strict=True)) < TOLERANCE
    assert engine.merged.num_kept == products

    del task, rows
    gc.collect()
    assert engine.merged.num_kept == engine.merged.num_bytes == 0
    engine.close()


def keeping_from(task: LoadedTask, rows: int) -> LoadedTask:
    """Return the task with its sparse changes kept merged from that many rows on."""
    products = {
        place: replace(ops, sparse=ops.sparse and replace(ops.sparse, keep_from_rows=rows))
        for place, ops in task.ops.products.items()
    }
    return replace(task, ops=replace(task.ops, products=products))


def patching_from(task: LoadedTask, rows: int) -> LoadedTask:
    """Return the task with its sparse changes patched in from that many rows on."""
    products = {
        place: replace(ops, sparse=ops.sparse and replace(ops.sparse, patch_from_rows=rows))
        for place, ops in task.ops.products.items()
    }
    return replace(task, ops=replace(task.ops, products=products))


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_number_of_threads_changes_nothing(
    small_engine: Engine, tasks: dict[str, LoadedTask], threads: int
) -> None:
    """Slices of one batch, cut for any number of threads, give the same logits."""
    rows = [
        EngineRow(task, token_ids(seed, 30 + 13 * (seed % 9)))
        for seed, task in enumerate(tasks.values())
    ]
    expected = [small_engine.run([row])[0] for row in rows]
    engine = Engine(small_engine.backbone, threads=threads, figures_file=kept_figures())

    found = engine.run(rows)
    engine.close()

    assert len(found) == len(rows)
    assert max(np.abs(a - b).max() for a, b in zip(found, expected, strict=True)) < TOLERANCE


def test_a_row_that_overflows_leaves_its_neighbours_alone(
    small_engine: Engine, tasks: dict[str, LoadedTask]
) -> None:
    """NaN stays in the row that made it, also beside a row of the same task."""
    broken_task = random_task("ia3", small_engine.backbone.shape, seed=99)
    for name in broken_task.dense:
        broken_task.dense[name] = np.full_like(broken_task.dense[name], 3e38)
    broken = EngineRow(broken_task.load(small_engine), token_ids(3, 8))
    row = EngineRow(tasks["ia3"], token_ids(4, 8))
    (alone,) = small_engine.run([row])

    found = small_engine.run([row, broken, row])

    assert not np.isfinite(found[1]).all()
    assert np.abs(found[0] - alone).max() < TOLERANCE
    assert np.abs(found[2] - alone).max() < TOLERANCE


def test_no_rows_give_no_logits(small_engine: Engine) -> None:
    """An empty batch is not an error."""
    assert small_engine.run([]) == []


@pytest.mark.parametrize(
    "ids",
    [
        pytest.param(np.array([], dtype=np.int64), id="empty"),
        pytest.param(np.full(513, 2000), id="longer than the positions"),
        pytest.param(np.array([101, 30522, 102]), id="beyond the vocabulary"),
        pytest.param(np.array([101, -1, 102]), id="negative"),
        pytest.param(np.full((2, 2), 2000), id="two dimensions"),
    ],
)
def test_a_row_that_cannot_be_run_is_refused(
    small_engine: Engine, tasks: dict[str, LoadedTask], ids: NDArray[np.int64]
) -> None:
    """Before anything is computed, with a typed error."""
    rows = [EngineRow(tasks["lora"], token_ids(1, 4)), EngineRow(tasks["lora"], ids)]

    with pytest.raises(RowError, match="expected"):
        small_engine.run(rows)


def test_a_task_of_another_backbone_is_refused(
    small_engine: Engine, tasks: dict[str, LoadedTask]
) -> None:
    """Weights are never run on a backbone that they were not laid out for."""
    other: Backbone = replace(small_engine.backbone, digest="sha256:" + "0" * 64)
    engine = Engine(other, threads=1, figures_file=kept_figures())

    with pytest.raises(ValueError, match="another backbone"):
        engine.run([EngineRow(tasks["lora"], token_ids(1, 4))])
    engine.close()
