"""Tasks as a worker has them: from a store, copied to the device, evicted and brought back."""

import gc
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from messages.task_event import TaskReference
from tests.workers.grouped.ways import Way, distance, grouped_encoder, token_ids
from tests.workers.stored_tasks import PLENTY, WatchedStore, acquire, add_task, reads_of
from workers.engine import Engine, EngineRow
from workers.grouped.device_backbone import DeviceBackbone
from workers.grouped.product_time import products_us_per_row
from workers.loaded_task import LoadedTask
from workers.task_manager import DeviceMemory, TaskManager

VARIANTS = ("lora", "mask", "houlsby", "bitfit", "diff", "ia3", "prefix", "dora")
IDS = token_ids(4, 13)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> WatchedStore:
    """A store for all tests, none of which changes it."""
    return WatchedStore(tmp_path_factory.mktemp("store") / "tasks")


@pytest.fixture(scope="module")
def references(store: WatchedStore, small_engine: Engine) -> list[TaskReference]:
    """Two tasks of each kind."""
    return [
        add_task(store, small_engine, f"{variant}-{'x' * number}", variant)
        for variant in VARIANTS
        for number in (1, 2)
    ]


@pytest.fixture(scope="module")
def expected(
    store: WatchedStore, references: list[TaskReference], small_engine: Engine
) -> dict[TaskReference, NDArray[np.float32]]:
    """What the CPU engine answers."""
    manager = TaskManager(store, small_engine, level=0, memory_limit_bytes=PLENTY)
    found = {}
    for reference in references:
        with acquire(manager, reference) as task:
            (found[reference],) = small_engine.run([EngineRow(task, IDS)])
    manager.close()
    return found


@pytest.fixture
def manager(
    store: WatchedStore, references: list[TaskReference], way: Way
) -> Iterator[TaskManager]:
    """A manager whose device has room for some of the tasks, and its host for all."""
    measured = TaskManager(store, way.engine, level=0, memory_limit_bytes=PLENTY)
    sizes = []
    for reference in references:
        with acquire(measured, reference) as task:
            sizes.append(task.num_bytes)
    measured.close()
    memory = DeviceMemory(way.how.device, max(sizes) + sum(sizes) // 3)
    made = TaskManager(store, way.engine, level=0, memory_limit_bytes=PLENTY, device=memory)
    yield made
    made.close()


def test_tasks_run_from_their_copies_on_the_device(
    manager: TaskManager,
    references: list[TaskReference],
    expected: dict[TaskReference, NDArray[np.float32]],
    store: WatchedStore,
    way: Way,
) -> None:
    """Evictions between batches, and tasks that come back from the host, change no answer."""
    for round_number in range(3):
        order = np.random.default_rng(round_number).permutation(len(references))

        for start in range(0, len(order), 4):
            batch = [references[number] for number in order[start : start + 4]]
            for reference, logits in zip(batch, run(manager, batch, way), strict=True):
                assert distance(logits, expected[reference]) < way.float32_tolerance
        held = [task for task, _ in manager.contents()]
        assert 4 <= len(held) < len(references)

    assert reads_of(store, lambda: run(manager, references[:4], way)) == []


def test_tasks_that_left_the_device_leave_the_pools(
    manager: TaskManager, references: list[TaskReference], way: Way
) -> None:
    """A slot is held for no task that memory does not hold."""
    run(manager, references, way)
    for reference in references:
        manager.retire(reference.name)
    gc.collect()
    lora = references[:1]

    run(manager, lora, way)
    manager.retire(lora[0].name)

    pools = grouped_encoder(way.engine).pools
    assert len(pools.low_rank("qkv", 8)._slots) == 1


def test_a_precision_is_measured_once(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for every task that is loaded: it keeps the device from its rows for milliseconds."""
    measured = []

    def counted(shared: DeviceBackbone) -> float:
        measured.append(shared)
        return products_us_per_row(shared)

    monkeypatch.setattr("workers.grouped.encoder.products_us_per_row", counted)
    for encoder in way.engine.encoders.values():
        vars(encoder).pop("us_per_row", None)

    chosen = {way.engine.precision_of(passes_bfloat16=True) for _ in range(3)}

    assert len(chosen) == 1
    assert len(measured) == len(way.engine.encoders) == 2


def run(
    manager: TaskManager, references: list[TaskReference], way: Way
) -> list[NDArray[np.float32]]:
    """Answer a row of each task in one batch."""
    with manager.acquire_all(references) as tasks:
        assert all(isinstance(task, LoadedTask) for task in tasks)
        return way.engine.run(
            [EngineRow(task, IDS) for task in tasks if isinstance(task, LoadedTask)]
        )
