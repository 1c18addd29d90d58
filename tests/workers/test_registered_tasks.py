"""What a worker does with the tasks topic, on real artifacts."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from messages.task_event import TaskEvent, TaskLevel, TaskReference, TaskRevision
from messages.task_event_codec import encode_task_event
from tests.workers.stored_tasks import (
    PLENTY,
    WatchedStore,
    acquire,
    add_task,
    reads_of,
    task_bytes,
    until,
    use,
)
from workers import registered_tasks
from workers.engine import Engine
from workers.registered_tasks import RegisteredTasks
from workers.task_manager import TaskManager

LIMIT_S = 60.0


@pytest.fixture
def store(tmp_path: Path) -> WatchedStore:
    return WatchedStore(tmp_path / "tasks")


@pytest.fixture
def tasks(store: WatchedStore, small_engine: Engine) -> Iterator[TaskManager]:
    manager = TaskManager(store, small_engine, level=0, memory_limit_bytes=PLENTY)
    yield manager
    manager.close()


def event(*references: TaskReference, retired: bool = False) -> tuple[bytes, bytes]:
    """Return the key and value of the record of a task with these revisions."""
    revisions = tuple(
        TaskRevision(
            reference,
            "single_label",
            7,
            takes_pair=False,
            levels=(TaskLevel(0, "minilm-l3", "bitfit", 128),),
        )
        for reference in references
    )
    name = references[0].name
    return name.encode(), encode_task_event(TaskEvent(name, retired, revisions)).value


def in_memory(tasks: TaskManager) -> set[TaskReference]:
    return {reference for reference, _ in tasks.contents()}


def loaded(tasks: TaskManager, *references: TaskReference) -> None:
    """Wait until the background has loaded exactly these."""
    until(lambda: in_memory(tasks) == set(references))


def test_a_start_loads_what_is_pinned_and_what_was_in_use(
    store: WatchedStore, tasks: TaskManager, small_engine: Engine
) -> None:
    """Of all that is registered, and nothing that no longer is."""
    pinned, recent, other, gone, retired = (
        add_task(store, small_engine, name) for name in ("pinned", "recent", "other", "gone", "old")
    )
    registered = RegisteredTasks(tasks, ["pinned"], [recent, gone, retired])
    for reference in (pinned, recent, other):
        registered.apply(*event(reference))
    registered.apply(*event(retired, retired=True))

    read = reads_of(store, lambda: registered.start(LIMIT_S))

    assert "pinned" in read
    loaded(tasks, pinned, recent)
    assert "other" not in store.opened


def test_a_start_decodes_no_events_but_those_of_tasks_in_use(
    tasks: TaskManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its time would grow with all that are registered."""

    def refuse(value: bytes) -> TaskEvent:
        raise AssertionError(value)

    monkeypatch.setattr(registered_tasks, "decode_task_event", refuse)
    registered = RegisteredTasks(tasks, ["pinned"], [])

    for number in range(100):
        name = f"task-{number}"
        registered.apply(*event(TaskReference(name, 1, "sha256:" + "0" * 64)))
    registered.start(LIMIT_S)

    assert tasks.contents() == []


def test_a_task_in_use_that_was_updated_meanwhile_is_loaded_in_both_revisions(
    store: WatchedStore, tasks: TaskManager, small_engine: Engine
) -> None:
    """Queries may go on asking for the one by number or alias, others get the newest."""
    first = add_task(store, small_engine, "weather", "bitfit")
    second = add_task(store, small_engine, "weather", "ia3")
    registered = RegisteredTasks(tasks, [], [first])
    registered.apply(*event(first))
    registered.apply(*event(first, second))

    registered.start(LIMIT_S)

    loaded(tasks, first, second)


def test_the_newest_revision_is_the_pinned_one(
    store: WatchedStore, small_engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether it is registered before the start or while the worker serves."""
    first = add_task(store, small_engine, "weather", "bitfit")
    second = add_task(store, small_engine, "weather", "ia3")
    others = [add_task(store, small_engine, name) for name in ("a", "bb")]
    size = task_bytes(store, small_engine, first)
    tasks = TaskManager(store, small_engine, level=0, memory_limit_bytes=size * 5 // 2)
    registered = RegisteredTasks(tasks, ["weather"], [])
    registered.start(LIMIT_S)
    assert "the pinned task weather is not registered" in caplog.text

    registered.apply(*event(first))
    loaded(tasks, first)
    use(tasks, *others, *others)
    assert reads_of(store, lambda: use(tasks, first)) == []
    registered.apply(*event(first, second))
    until(lambda: second in in_memory(tasks))
    use(tasks, *others, *others)

    assert in_memory(tasks) >= {second}
    assert first not in in_memory(tasks)
    tasks.close()


def test_what_is_registered_during_the_start_is_newer_than_what_it_loads(
    store: WatchedStore, small_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The topic's thread goes on meanwhile; its pin of a new revision must not be taken back."""
    first = add_task(store, small_engine, "weather", "bitfit")
    second = add_task(store, small_engine, "weather", "ia3")
    tasks = TaskManager(store, small_engine, level=0, memory_limit_bytes=PLENTY)
    registered = RegisteredTasks(tasks, ["weather"], [])
    registered.apply(*event(first))
    pin, pinned, threads = tasks.pin, list[TaskReference](), list[threading.Thread]()

    def pin_slowly(reference: TaskReference) -> None:
        if not threads:
            threads.append(threading.Thread(target=registered.apply, args=event(first, second)))
            threads[0].start()
            threads[0].join(0.5)  # it would be through by now if nothing kept it waiting
        pinned.append(reference)
        pin(reference)

    monkeypatch.setattr(tasks, "pin", pin_slowly)

    registered.start(LIMIT_S)
    threads[0].join(LIMIT_S)

    assert pinned == [first, second]
    tasks.close()


def test_a_task_that_is_registered_while_serving_is_loaded_at_once(
    store: WatchedStore, tasks: TaskManager, small_engine: Engine
) -> None:
    """Its newest revision, which is what queries get that name none."""
    first = add_task(store, small_engine, "weather", "bitfit")
    second = add_task(store, small_engine, "weather", "ia3")
    registered = RegisteredTasks(tasks, [], [])
    registered.start(LIMIT_S)

    registered.apply(*event(first, second))

    loaded(tasks, second)


@pytest.mark.parametrize("is_deleted", [False, True], ids=["retired", "deleted"])
def test_a_task_that_serves_no_more_leaves(
    store: WatchedStore, tasks: TaskManager, small_engine: Engine, is_deleted: bool
) -> None:
    """Whether its record says so or was deleted; registered again, it is loaded again."""
    reference = add_task(store, small_engine, "weather")
    registered = RegisteredTasks(tasks, [], [])
    registered.start(LIMIT_S)
    registered.apply(*event(reference))
    loaded(tasks, reference)

    key, value = event(reference, retired=True)
    with acquire(tasks, reference):
        registered.apply(key, None if is_deleted else value)
        assert in_memory(tasks) == {reference}

    assert in_memory(tasks) == set()
    registered.apply(*event(reference))
    loaded(tasks, reference)


@pytest.mark.parametrize("value", [b"\xc1", None], ids=["no event", "another's"])
def test_a_record_that_is_not_of_its_task_changes_nothing(
    store: WatchedStore,
    tasks: TaskManager,
    small_engine: Engine,
    caplog: pytest.LogCaptureFixture,
    value: bytes | None,
) -> None:
    """The topic's other records still count."""
    reference = add_task(store, small_engine, "weather")
    registered = RegisteredTasks(tasks, [], [])
    registered.start(LIMIT_S)
    _, anothers = event(replace(reference, name="another"))

    registered.apply(b"weather", value or anothers)
    registered.apply(*event(reference))

    loaded(tasks, reference)
    assert "ignored" in caplog.text
