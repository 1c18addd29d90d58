"""Tasks in memory: loaded once, counted, evicted when idle and never when in use."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from messages.task_event import TaskReference
from tasks.artifact_writer import TrainedLevel, write_artifact
from tasks.description import BackboneReference
from tasks.errors import (
    BackboneMismatch,
    ChecksumMismatch,
    LevelNotFound,
    TaskError,
    TaskNotInStore,
)
from tasks.store import TaskStore
from tests.workers.pets import random_task
from workers.engine import Engine, EngineRow
from workers.errors import TaskMemoryError
from workers.task_manager import LoadedTask, TaskManager

PLENTY = 1 << 30


@pytest.fixture
def store(tmp_path: Path) -> TaskStore:
    """An empty task store."""
    return TaskStore(tmp_path / "tasks")


@pytest.fixture
def manager(store: TaskStore, small_engine: Engine) -> Iterator[TaskManager]:
    """A manager with room for everything."""
    manager = TaskManager(store, small_engine, level=0, memory_limit_bytes=PLENTY)
    yield manager
    manager.close()


def add_task(
    store: TaskStore, engine: Engine, name: str, variant: str = "bitfit", digest: str | None = None
) -> TaskReference:
    """Write an artifact and add it to the store, as `petstream tasks add` does."""
    task = random_task(variant, engine.backbone.shape, seed=len(name))
    level = TrainedLevel(
        level=0,
        backbone=BackboneReference(name="minilm-l3", digest=digest or engine.backbone.digest),
        shape=engine.backbone.shape,
        pet=task.pet,
        pooling="mean",
        max_tokens=128,
        head_weight=task.head_weight,
        head_bias=task.head_bias,
        tensors=task.dense,
    )
    folder = store.root.parent / name
    write_artifact(
        folder,
        name=name,
        kind="single_label",
        labels=[f"label-{i}" for i in range(len(task.head_bias))],
        takes_pair=False,
        source="random",
        licence="none",
        levels=(level,),
        overwrite=True,
    )
    artifact = store.add(folder, {"minilm-l3": engine.backbone.shape})
    return TaskReference(name, artifact.description.revision, artifact.digest)


def test_an_acquired_task_runs(
    store: TaskStore, manager: TaskManager, small_engine: Engine
) -> None:
    """From the store on disk to logits of its labels."""
    reference = add_task(store, small_engine, "weather", "lora")

    with manager.acquire(reference) as task:
        (logits,) = small_engine.run([EngineRow(task, np.array([101, 2054, 102]))])

    assert task.description.name == "weather"
    assert logits.shape == (7,)
    assert np.isfinite(logits).all()


def test_a_task_is_loaded_once_for_all_who_ask(
    store: TaskStore, manager: TaskManager, small_engine: Engine
) -> None:
    """Threads that ask at the same time get the same weights."""
    reference = add_task(store, small_engine, "weather")
    barrier = threading.Barrier(8)
    got: list[LoadedTask] = []

    def take() -> None:
        barrier.wait()
        with manager.acquire(reference) as task:
            got.append(task)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(got) == 8
    assert len({id(task) for task in got}) == 1


def test_the_idle_task_unused_longest_is_evicted_first(
    store: TaskStore, small_engine: Engine
) -> None:
    """Within the budget, in the order of use."""
    a, b, c = (add_task(store, small_engine, name) for name in ("a", "bb", "ccc"))
    size = task_bytes(store, small_engine, a)
    manager = TaskManager(store, small_engine, level=0, memory_limit_bytes=2 * size + size // 2)
    for reference in (a, b, a, c):
        with manager.acquire(reference):
            pass

    assert manager.resident == (a, c)
    assert manager.used_bytes <= 2 * size + size // 2
    manager.close()


def test_a_task_in_use_is_never_evicted(store: TaskStore, small_engine: Engine) -> None:
    """Tasks in use may exceed the budget together; released, they make room."""
    references = [add_task(store, small_engine, name) for name in ("a", "bb", "ccc")]
    size = task_bytes(store, small_engine, references[0])
    manager = TaskManager(store, small_engine, level=0, memory_limit_bytes=size + size // 2)

    with manager.acquire_all(references) as tasks:
        assert all(isinstance(task, LoadedTask) for task in tasks)
        assert set(manager.resident) == set(references)
        assert not manager.evict(references[0])
    assert manager.resident == (references[2],)
    assert manager.evict(references[2])
    assert manager.used_bytes == 0
    manager.close()


def test_a_task_larger_than_the_budget_is_refused(store: TaskStore, small_engine: Engine) -> None:
    """With an error that names both sizes; nothing of it stays."""
    reference = add_task(store, small_engine, "weather", "mask")
    manager = TaskManager(store, small_engine, level=0, memory_limit_bytes=10_000)

    with pytest.raises(TaskMemoryError, match="10000"), manager.acquire(reference):
        pass
    assert manager.used_bytes == 0
    manager.close()


def test_one_bad_task_does_not_touch_the_others(
    store: TaskStore, manager: TaskManager, small_engine: Engine
) -> None:
    """Each task that cannot be had is its error, in its place."""
    good = add_task(store, small_engine, "weather")
    unknown = TaskReference("unknown", 1, "sha256:" + "0" * 64)
    changed = replace(good, digest="sha256:" + "1" * 64)
    foreign = add_task(store, small_engine, "foreign", digest="sha256:" + "2" * 64)

    with manager.acquire_all([unknown, good, changed, foreign]) as tasks:
        kinds = [type(task) for task in tasks]

    assert kinds == [TaskNotInStore, LoadedTask, ChecksumMismatch, BackboneMismatch]
    assert all(issubclass(kind, TaskError) for kind in kinds if kind is not LoadedTask)
    assert manager.resident == (good,)


def test_a_level_that_the_task_does_not_have_is_a_typed_error(
    store: TaskStore, small_engine: Engine
) -> None:
    """A worker of level 1 cannot run a task that has only level 0."""
    reference = add_task(store, small_engine, "weather")
    manager = TaskManager(store, small_engine, level=1, memory_limit_bytes=PLENTY)

    with pytest.raises(LevelNotFound), manager.acquire(reference):
        pass
    manager.close()


def test_a_task_that_failed_can_be_had_when_it_comes(
    store: TaskStore, manager: TaskManager, small_engine: Engine
) -> None:
    """An error is not remembered."""
    reference = add_task(store, small_engine, "weather")
    store.remove("weather", reference.revision)
    with pytest.raises(TaskNotInStore), manager.acquire(reference):
        pass
    assert add_task(store, small_engine, "weather") == reference
    with manager.acquire(reference) as task:
        assert task.description.name == "weather"


def test_preloading_happens_in_the_background(
    store: TaskStore, small_engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """A task is there before it is asked for; one that cannot be loaded is logged, not raised."""
    reference = add_task(store, small_engine, "weather")
    manager = TaskManager(store, small_engine, level=0, memory_limit_bytes=PLENTY)

    manager.preload(TaskReference("unknown", 1, "sha256:" + "0" * 64))
    manager.preload(reference)
    deadline_s = time.monotonic() + 60
    while not manager.resident and time.monotonic() < deadline_s:
        threading.Event().wait(0.01)

    assert manager.resident == (reference,)
    assert "unknown@1 cannot be preloaded" in caplog.text
    manager.close()


def task_bytes(store: TaskStore, engine: Engine, reference: TaskReference) -> int:
    """What a task occupies in memory."""
    manager = TaskManager(store, engine, level=0, memory_limit_bytes=PLENTY)
    with manager.acquire(reference) as task:
        size = task.num_bytes
    manager.close()
    return size
