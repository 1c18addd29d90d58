"""Tasks in memory: loaded once, counted, evicted when idle and never when in use."""

import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import numpy as np
import pytest

from messages.task_event import TaskReference
from tasks.errors import (
    BackboneMismatch,
    ChecksumMismatch,
    LevelNotFound,
    TaskError,
    TaskNotInStore,
)
from tests.workers.stored_tasks import (
    PLENTY,
    UNKNOWN,
    WatchedStore,
    acquire,
    add_task,
    reads_of,
    task_bytes,
    until,
    use,
)
from workers import task_manager, tier
from workers.engine import Engine, EngineRow
from workers.errors import TaskLoadError, TaskMemoryError
from workers.task_manager import LoadedTask, TaskManager

if TYPE_CHECKING:
    from _typeshed import TraceFunction


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

    manager.preload(replace(UNKNOWN, name="broken"))
    manager.preload(reference).result()

    assert reads_of(store, lambda: use(manager, reference)) == []
    assert "broken@1 cannot be preloaded" in caplog.text
    assert "none left" in caplog.text


@pytest.mark.parametrize("variant", ["bitfit", "thin-mask"])
def test_what_nobody_asked_for_yet_is_the_first_to_make_room(
    store: WatchedStore, small_engine: Engine, variant: str
) -> None:
    """Of the tasks that are asked for one leaves at most, however many are registered."""
    a, b, *added = (
        add_task(store, small_engine, name, variant) for name in ("aa", "bb", "cc", "dd", "ee")
    )
    size = task_bytes(store, small_engine, a)
    manager = TaskManager(store, small_engine, level=0, memory_limit_bytes=size * 29 // 10)
    use(manager, a, b)

    for reference in added:
        manager.preload(reference).result()

    assert reads_of(store, lambda: use(manager, b)) == []
    assert manager.host_bytes <= size * 29 // 10
    manager.close()


def test_a_task_that_is_added_to_a_full_memory_is_there_before_it_is_asked_for(
    store: WatchedStore, small_engine: Engine
) -> None:
    """The one that was used longest ago makes room for it, in the background."""
    a, b, c = (add_task(store, small_engine, name) for name in ("a", "bb", "ccc"))
    size = task_bytes(store, small_engine, a)
    manager = TaskManager(store, small_engine, level=0, memory_limit_bytes=size * 29 // 10)
    use(manager, a, b)

    manager.preload(c).result()

    assert reads_of(store, lambda: use(manager, b, c)) == []
    assert reads_of(store, lambda: use(manager, a)) == ["a"]
    manager.close()


def test_what_is_in_use_does_not_leave_for_what_nobody_asked_for(
    store: WatchedStore, small_engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """Then it is not loaded ahead."""
    a, b = (add_task(store, small_engine, name) for name in ("a", "bb"))
    size = task_bytes(store, small_engine, a)
    manager = TaskManager(store, small_engine, level=0, memory_limit_bytes=size * 3 // 2)

    with caplog.at_level("INFO"), acquire(manager, a):
        manager.preload(b).result()

    assert "task bb@1, host memory: not loaded ahead" in caplog.text
    assert reads_of(store, lambda: use(manager, a)) == []
    manager.close()


def test_a_pinned_task_is_never_evicted(store: WatchedStore, small_engine: Engine) -> None:
    """However long it was not used, and however many others come."""
    pinned, *others = (add_task(store, small_engine, name) for name in ("a", "bb", "ccc", "dddd"))
    size = task_bytes(store, small_engine, pinned)
    manager = TaskManager(store, small_engine, level=0, memory_limit_bytes=size * 5 // 2)
    manager.pin(pinned)
    manager.preload(pinned).result()

    use(manager, *others, *others)

    assert reads_of(store, lambda: use(manager, pinned)) == []
    assert reads_of(store, lambda: use(manager, others[0])) == ["bb"]
    manager.close()


def test_the_pin_of_a_task_moves_to_its_next_revision(
    store: WatchedStore, small_engine: Engine
) -> None:
    """The one before stays only as long as there is room for it."""
    first = add_task(store, small_engine, "weather")
    other = add_task(store, small_engine, "other")
    size = task_bytes(store, small_engine, first)
    manager = TaskManager(store, small_engine, level=0, memory_limit_bytes=size * 5 // 2)
    second = add_task(store, small_engine, "weather", "ia3")
    for reference in (first, second):
        manager.pin(reference)
        manager.preload(reference).result()

    use(manager, other, add_task(store, small_engine, "another"))

    assert reads_of(store, lambda: use(manager, second)) == []
    assert reads_of(store, lambda: use(manager, first)) == ["weather"]
    manager.close()


def test_pinned_tasks_that_do_not_fit_together_are_served_unpinned(
    store: WatchedStore, small_engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """The last one; an error names the option, and memory stays within its budget."""
    a, b = (add_task(store, small_engine, name) for name in ("a", "bb"))
    size = task_bytes(store, small_engine, a)
    manager = TaskManager(store, small_engine, level=0, memory_limit_bytes=size * 3 // 2)

    for reference in (a, b):
        manager.pin(reference)
        manager.preload(reference).result()

    assert "bb@1 is not pinned" in caplog.text
    assert "--memory-mib" in caplog.text
    use(manager, b)
    assert reads_of(store, lambda: use(manager, a)) == []
    assert manager.host_bytes <= size * 3 // 2
    manager.close()


def test_a_pinned_task_that_is_retired_leaves(
    store: WatchedStore, manager: TaskManager, small_engine: Engine
) -> None:
    """A pin keeps it from making room, not from being taken out of service."""
    pinned = add_task(store, small_engine, "a")
    manager.pin(pinned)
    manager.preload(pinned).result()

    manager.retire("a")

    assert reads_of(store, lambda: use(manager, pinned)) == ["a"]


def test_a_load_does_not_keep_others_from_what_is_in_memory(
    store: WatchedStore, manager: TaskManager, small_engine: Engine
) -> None:
    """While one is being read, in the background or for who asks, the others are had at once."""
    here, coming = (add_task(store, small_engine, name) for name in ("a", "bb"))
    use(manager, here)
    store.gates["bb"] = threading.Event()
    loading = manager.preload(coming)
    until(lambda: "bb" in store.waiting)

    use(manager, here)

    assert not loading.done()
    store.gates["bb"].set()
    loading.result()
    assert reads_of(store, lambda: use(manager, coming)) == []


def test_a_load_ahead_waits_for_the_batch_that_runs(
    store: WatchedStore,
    manager: TaskManager,
    small_engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It would take a core from it. But not for ever: batches may follow each other closely."""
    here, coming, later = (add_task(store, small_engine, name) for name in ("a", "bb", "ccc"))
    monkeypatch.setattr(task_manager, "_PATIENCE_S", 1000.0)
    with acquire(manager, here):
        loading = manager.preload(coming)
        with pytest.raises(TimeoutError):
            loading.result(0.2)
    loading.result()

    monkeypatch.setattr(task_manager, "_PATIENCE_S", 0.01)
    with acquire(manager, here):
        manager.preload(later).result()

    assert reads_of(store, lambda: use(manager, coming, later)) == []


def test_who_asks_for_a_task_that_is_being_loaded_gets_that_one(
    store: WatchedStore, manager: TaskManager, small_engine: Engine
) -> None:
    """It is not read a second time, and does not leave before it is used."""
    coming = add_task(store, small_engine, "bb")
    store.gates["bb"] = threading.Event()
    loading = manager.preload(coming)
    until(lambda: "bb" in store.waiting)
    asking = threading.Thread(target=use, args=(manager, coming))
    asking.start()
    until(lambda: (coming, True) in manager.contents())
    store.gates["bb"].set()
    asking.join()
    loading.result()

    assert reads_of(store, lambda: use(manager, coming)) == []


def test_a_task_that_is_retired_while_it_is_loaded_does_not_stay(
    store: WatchedStore, manager: TaskManager, small_engine: Engine
) -> None:
    """Nobody would ever ask for it again."""
    coming = add_task(store, small_engine, "bb")
    store.gates["bb"] = threading.Event()
    loading = manager.preload(coming)
    until(lambda: "bb" in store.waiting)
    manager.retire("bb")
    store.gates["bb"].set()
    loading.result()

    assert manager.contents() == []
    assert manager.host_bytes == 0


def test_the_revisions_of_a_task_that_is_updated_while_it_is_asked_do_not_mix(
    store: WatchedStore, manager: TaskManager, small_engine: Engine
) -> None:
    """Threads ask for revisions while later ones are loaded: each gets the logits of its own."""
    biases = [np.eye(7, dtype=np.float32)[number] * 100 for number in range(5)]
    revisions = [add_task(store, small_engine, "weather", head_bias=bias) for bias in biases]
    assert [reference.revision for reference in revisions] == [1, 2, 3, 4, 5]
    ids = np.array([101, 2054, 102])
    wrong: list[tuple[int, int]] = []
    newest = [revisions[0]]

    def ask() -> None:
        for _ in range(40):
            reference = newest[-1]
            with acquire(manager, reference) as task:
                (logits,) = small_engine.run([EngineRow(task, ids)])
            if int(logits.argmax()) != reference.revision - 1:
                wrong.append((reference.revision, int(logits.argmax())))

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for asker in askers:
        asker.start()
    for reference in revisions[1:]:
        manager.preload(reference).result()
        newest.append(reference)
    for asker in askers:
        asker.join()

    assert wrong == []


def test_a_retired_task_leaves_memory_when_nobody_uses_it(
    store: WatchedStore,
    manager: TaskManager,
    small_engine: Engine,
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
    manager.preload(idle).result()
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
    """Count the lines of the manager and its tier that acquiring and releasing tasks runs."""
    count = 0

    def trace(frame: FrameType, event: str, _: object) -> "TraceFunction | None":
        nonlocal count
        if frame.f_code.co_filename not in (task_manager.__file__, tier.__file__):
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
