"""Tasks in memory: loaded once, counted, evicted when idle and never when in use."""

import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import numpy as np
import pytest

from messages.task_event import TaskReference
from tasks.artifact import Artifact
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
from workers import task_manager
from workers.engine import Engine, EngineRow
from workers.errors import TaskLoadError, TaskMemoryError
from workers.task_manager import LoadedTask, TaskManager

if TYPE_CHECKING:
    from _typeshed import TraceFunction

PLENTY = 1 << 30
LIMIT_S = 60
UNKNOWN = TaskReference("unknown", 1, "sha256:" + "0" * 64)


class WatchedStore(TaskStore):
    """A store that knows what was read from it, and can fail: what is in memory is not read."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.opened: list[str] = []
        self.failures: dict[str, Exception] = {}
        self.stands_for: TaskReference | None = None
        """Where set, every task is this one under another name."""

    def open(self, reference: TaskReference) -> Artifact:
        """Open as a store does."""
        self.opened.append(reference.name)
        if reference.name in self.failures:
            raise self.failures[reference.name]
        return super().open(self.stands_for or reference)


@pytest.fixture
def store(tmp_path: Path) -> WatchedStore:
    """An empty task store."""
    return WatchedStore(tmp_path / "tasks")


@pytest.fixture
def manager(store: WatchedStore, small_engine: Engine) -> Iterator[TaskManager]:
    """A manager with room for everything."""
    manager = TaskManager(store, small_engine, level=0, memory_limit_bytes=PLENTY)
    yield manager
    manager.close()


@contextmanager
def acquire(manager: TaskManager, reference: TaskReference) -> Iterator[LoadedTask]:
    """Hold one task; raise where it cannot be had."""
    with manager.acquire_all([reference]) as (task,):
        if isinstance(task, TaskError):
            raise task
        yield task


def use(manager: TaskManager, *references: TaskReference) -> None:
    """Take and release each task in turn."""
    for reference in references:
        with acquire(manager, reference):
            pass


def reads_of(store: WatchedStore, act: Callable[[], object]) -> list[str]:
    """Return which tasks are read from the store meanwhile: those that are not in memory."""
    store.opened.clear()
    act()
    return list(store.opened)


def until(is_reached: Callable[[], bool]) -> None:
    """Wait for what another thread does."""
    deadline_s = time.monotonic() + LIMIT_S
    while not is_reached():
        assert time.monotonic() < deadline_s
        threading.Event().wait(0.01)


def await_preloads(
    manager: TaskManager, caplog: pytest.LogCaptureFixture, name: str = "unknown"
) -> None:
    """Wait until all that was asked for so far is loaded: it happens one after another."""
    manager.preload(replace(UNKNOWN, name=name))
    until(lambda: f"{name}@1 cannot be preloaded" in caplog.text)


def add_task(
    store: TaskStore, engine: Engine, name: str, variant: str = "bitfit", digest: str | None = None
) -> TaskReference:
    """Write an artifact and add it to the store, as `petstream tasks add` does."""
    is_thin = variant == "thin-mask"
    task = random_task("mask" if is_thin else variant, engine.backbone.shape, seed=len(name))
    if is_thin:  # larger in memory than its file: an offset for each row of each weight
        for dropped in task.dense.values():
            dropped[:] = False
            dropped[0, 0] = True
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
    store: WatchedStore, manager: TaskManager, small_engine: Engine
) -> None:
    """From the store on disk to logits of its labels."""
    reference = add_task(store, small_engine, "weather", "lora")

    with acquire(manager, reference) as task:
        (logits,) = small_engine.run([EngineRow(task, np.array([101, 2054, 102]))])

    assert task.description.name == "weather"
    assert logits.shape == (7,)
    assert np.isfinite(logits).all()


def test_a_task_is_loaded_once_for_all_who_ask(
    store: WatchedStore, manager: TaskManager, small_engine: Engine
) -> None:
    """Threads that ask at the same time get the same weights."""
    reference = add_task(store, small_engine, "weather")
    barrier = threading.Barrier(8)
    got: list[LoadedTask] = []

    def take() -> None:
        barrier.wait()
        with acquire(manager, reference) as task:
            got.append(task)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(got) == 8
    assert len({id(task) for task in got}) == 1


def test_the_idle_task_unused_longest_is_evicted_first(
    store: WatchedStore, small_engine: Engine
) -> None:
    """Within the budget, in the order of use."""
    a, b, c = (add_task(store, small_engine, name) for name in ("a", "bb", "ccc"))
    size = task_bytes(store, small_engine, a)
    manager = TaskManager(store, small_engine, level=0, memory_limit_bytes=2 * size + size // 2)

    use(manager, a, b, a, c)

    assert reads_of(store, lambda: use(manager, a, c)) == []
    assert reads_of(store, lambda: use(manager, b)) == ["bb"]
    assert reads_of(store, lambda: use(manager, c, b)) == []
    manager.close()


def test_a_task_in_use_is_never_evicted(store: WatchedStore, small_engine: Engine) -> None:
    """Tasks in use may exceed the budget together; released, they make room."""
    references = [add_task(store, small_engine, name) for name in ("a", "bb", "ccc")]
    size = task_bytes(store, small_engine, references[0])
    manager = TaskManager(store, small_engine, level=0, memory_limit_bytes=size + size // 2)

    with manager.acquire_all(references) as tasks:
        assert all(isinstance(task, LoadedTask) for task in tasks)
        assert reads_of(store, lambda: use(manager, *references)) == []

    assert reads_of(store, lambda: use(manager, references[2])) == []
    assert reads_of(store, lambda: use(manager, references[0])) == ["a"]
    manager.close()


def test_a_task_larger_than_the_budget_is_refused(
    store: WatchedStore, small_engine: Engine
) -> None:
    """With an error that names both sizes and the option; nothing of it stays."""
    large = add_task(store, small_engine, "weather", "mask")
    small = add_task(store, small_engine, "a")
    size = task_bytes(store, small_engine, small)
    manager = TaskManager(store, small_engine, level=0, memory_limit_bytes=size)
    use(manager, small)

    with pytest.raises(TaskMemoryError, match=rf"{size}: .*--memory-mib"):
        use(manager, large)

    assert reads_of(store, lambda: use(manager, small)) == []
    manager.close()


def test_one_bad_task_does_not_touch_the_others(
    store: WatchedStore, manager: TaskManager, small_engine: Engine
) -> None:
    """Each task that cannot be had is its error, in its place."""
    good = add_task(store, small_engine, "weather")
    changed = replace(good, digest="sha256:" + "1" * 64)
    foreign = add_task(store, small_engine, "foreign", digest="sha256:" + "2" * 64)

    with manager.acquire_all([UNKNOWN, good, changed, foreign]) as tasks:
        kinds = [type(task) for task in tasks]

    assert kinds == [TaskNotInStore, LoadedTask, ChecksumMismatch, BackboneMismatch]
    assert all(issubclass(kind, TaskError) for kind in kinds if kind is not LoadedTask)
    assert reads_of(store, lambda: use(manager, good)) == []


@pytest.mark.parametrize(
    "failure",
    [MemoryError(), RuntimeError("torch: not enough memory"), OSError(5, "disk")],
    ids=repr,
)
def test_a_load_that_fails_for_no_fault_of_the_task_is_a_typed_error(
    store: WatchedStore, manager: TaskManager, small_engine: Engine, failure: Exception
) -> None:
    """It costs its own rows only, and the next batch tries again."""
    bad, good = (add_task(store, small_engine, name) for name in ("bad", "good"))
    store.failures["bad"] = failure

    with manager.acquire_all([bad, good]) as tasks:
        assert [type(task) for task in tasks] == [TaskLoadError, LoadedTask]

    store.failures.clear()
    use(manager, bad)


def test_a_level_that_the_task_does_not_have_is_a_typed_error(
    store: WatchedStore, small_engine: Engine
) -> None:
    """A worker of level 1 cannot run a task that has only level 0."""
    reference = add_task(store, small_engine, "weather")
    manager = TaskManager(store, small_engine, level=1, memory_limit_bytes=PLENTY)

    with pytest.raises(LevelNotFound):
        use(manager, reference)
    manager.close()


def test_a_task_that_failed_can_be_had_when_it_comes(
    store: WatchedStore, manager: TaskManager, small_engine: Engine
) -> None:
    """An error is not remembered."""
    reference = add_task(store, small_engine, "weather")
    shutil.rmtree(store.root / "weather" / str(reference.revision))
    with pytest.raises(TaskNotInStore):
        use(manager, reference)
    assert add_task(store, small_engine, "weather") == reference
    with acquire(manager, reference) as task:
        assert task.description.name == "weather"


def test_preloading_happens_in_the_background(
    store: WatchedStore,
    manager: TaskManager,
    small_engine: Engine,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A task is there before it is asked for; what cannot be loaded is logged, not raised."""
    reference = add_task(store, small_engine, "weather")
    store.failures["broken"] = MemoryError("none left")

    with caplog.at_level("INFO"):
        manager.preload(replace(UNKNOWN, name="broken"))
        manager.preload(reference)
        await_preloads(manager, caplog)

    assert reads_of(store, lambda: use(manager, reference)) == []
    assert "broken@1 cannot be preloaded" in caplog.text
    assert "none left" in caplog.text


@pytest.mark.parametrize(
    ("variant", "why"),
    [("bitfit", "not preloaded: no room"), ("thin-mask", "does not fit beside those in memory")],
)
def test_preloading_evicts_nothing(
    store: WatchedStore,
    small_engine: Engine,
    caplog: pytest.LogCaptureFixture,
    variant: str,
    why: str,
) -> None:
    """Neither for what does not fit, nor for what turns out larger than its file lets expect."""
    names = ("aa", "bb", "cc", "dd")
    references = [add_task(store, small_engine, name, variant) for name in names]
    size = task_bytes(store, small_engine, references[0])
    manager = TaskManager(store, small_engine, level=0, memory_limit_bytes=size * 29 // 10)
    use(manager, references[0])

    with caplog.at_level("INFO"):
        for reference in references[1:]:
            manager.preload(reference)
        await_preloads(manager, caplog)

    assert reads_of(store, lambda: use(manager, *references[:2])) == []
    assert caplog.text.count(why) == 2
    assert "makes room" not in caplog.text
    manager.close()


def test_a_retired_task_leaves_memory_when_nobody_uses_it(
    store: WatchedStore,
    manager: TaskManager,
    small_engine: Engine,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """At once where it is idle, else on release; registered again, it stays."""
    idle, used, other = (add_task(store, small_engine, name) for name in ("a", "bb", "ccc"))
    use(manager, idle, used, other)

    with acquire(manager, used):
        manager.retire("a")
        manager.retire("bb")
        assert reads_of(store, lambda: use(manager, used)) == []

    assert reads_of(store, lambda: use(manager, idle, used, other)) == ["a", "bb"]
    assert reads_of(store, lambda: use(manager, idle, used, other)) == ["a", "bb"]
    manager.preload(idle)
    await_preloads(manager, caplog)
    assert reads_of(store, lambda: use(manager, idle)) == []


def test_what_a_batch_costs_does_not_depend_on_how_many_tasks_are_in_memory(
    store: WatchedStore, small_engine: Engine
) -> None:
    """Counted in lines of the manager that are run: 16 tasks beside 20 others and beside 200."""
    store.stands_for = add_task(store, small_engine, "weather")
    references = [replace(UNKNOWN, name=f"task-{number}") for number in range(216)]
    manager = TaskManager(store, small_engine, level=0, memory_limit_bytes=PLENTY)
    batch = references[:16]
    use(manager, *references[:36])
    beside_few = lines_run(manager, batch)
    use(manager, *references[36:])

    assert lines_run(manager, batch) == beside_few
    manager.close()


def lines_run(manager: TaskManager, references: Sequence[TaskReference]) -> int:
    """Count the lines of the manager's module that acquiring and releasing tasks runs."""
    count = 0

    def trace(frame: FrameType, event: str, _: object) -> "TraceFunction | None":
        nonlocal count
        if frame.f_code.co_filename != task_manager.__file__:
            return None
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with manager.acquire_all(references):
            pass
    finally:
        sys.settrace(before)
    return count


def task_bytes(store: TaskStore, engine: Engine, reference: TaskReference) -> int:
    """What a task occupies in memory."""
    manager = TaskManager(store, engine, level=0, memory_limit_bytes=PLENTY)
    with acquire(manager, reference) as task:
        size = task.num_bytes
    manager.close()
    return size
