"""What a query may call a task, while tasks come, change, retire and go."""

import dataclasses
import threading

import pytest

from messages.errors import MessageError, Reason
from messages.task_event import TaskEvent, TaskLevel, TaskReference, TaskRevision
from messages.task_event_codec import encode_task_event
from scheduler.registry import TaskDirectory


def _revision(name: str, number: int) -> TaskRevision:
    reference = TaskReference(name, number, f"sha256:{number:064x}")
    levels = (TaskLevel(0, "minilm-l3", "lora", 128), TaskLevel(1, "minilm-l6", "lora", 128))
    return TaskRevision(reference, "single_label", 7, takes_pair=False, levels=levels)


def _event(
    name: str = "banking77",
    revisions: tuple[int, ...] = (1,),
    *,
    retired: bool = False,
    aliases: tuple[tuple[str, int], ...] = (),
) -> TaskEvent:
    return TaskEvent(name, retired, tuple(_revision(name, n) for n in revisions), aliases)


def _directory(*events: TaskEvent) -> TaskDirectory:
    directory = TaskDirectory()
    for event in events:
        directory.apply(event.name.encode(), encode_task_event(event).value)
    return directory


def _reason(directory: TaskDirectory, task: str) -> Reason:
    with pytest.raises(MessageError) as raised:
        directory.resolve(task)
    return raised.value.reason


def test_a_name_means_its_newest_revision() -> None:
    """A name means its newest revision."""
    directory = _directory(_event(revisions=(1, 2, 5)))

    assert directory.resolve("banking77") == _revision("banking77", 5)


def test_a_revision_or_an_alias_can_be_asked_for() -> None:
    """A revision or an alias can be asked for."""
    directory = _directory(_event(revisions=(1, 2), aliases=(("stable", 1),)))

    assert directory.resolve("banking77@2").reference.revision == 2
    assert directory.resolve("banking77:stable").reference.revision == 1


@pytest.mark.parametrize(
    "task", ["nobody", "banking77@9", "banking77:canary", "banking77@stable", "banking77@1:stable"]
)
def test_what_was_never_published_is_unknown(task: str) -> None:
    """What was never published is unknown."""
    directory = _directory(_event(aliases=(("stable", 1),)))

    assert _reason(directory, task) is Reason.TASK_UNKNOWN


@pytest.mark.parametrize("task", ["banking77", "banking77@1", "banking77:stable"])
def test_a_retired_task_says_so_by_every_name(task: str) -> None:
    """A retired task says so by every name."""
    directory = _directory(
        _event(aliases=(("stable", 1),)), _event(retired=True, aliases=(("stable", 1),))
    )

    assert _reason(directory, task) is Reason.TASK_RETIRED
    assert len(directory) == 0


def test_a_retired_task_can_come_back() -> None:
    """A retired task can come back."""
    directory = _directory(_event(retired=True), _event(revisions=(1, 2)))

    assert directory.resolve("banking77").reference.revision == 2


def test_an_update_moves_aliases_and_drops_old_names() -> None:
    """An update moves aliases and drops old names."""
    directory = _directory(
        _event(revisions=(1, 2), aliases=(("stable", 1), ("canary", 2))),
        _event(revisions=(2, 3), aliases=(("stable", 3),)),
    )

    assert directory.resolve("banking77:stable").reference.revision == 3
    assert _reason(directory, "banking77@1") is Reason.TASK_UNKNOWN
    assert _reason(directory, "banking77:canary") is Reason.TASK_UNKNOWN


def test_a_tombstone_removes_the_task() -> None:
    """A tombstone removes the task."""
    directory = _directory(_event())

    directory.apply(b"banking77", None)

    assert _reason(directory, "banking77") is Reason.TASK_UNKNOWN
    assert _reason(directory, "banking77@1") is Reason.TASK_UNKNOWN


def test_a_tombstone_of_an_unknown_task_changes_nothing() -> None:
    """A tombstone of an unknown task changes nothing."""
    directory = _directory(_event())

    directory.apply(b"snips", None)

    assert len(directory) == 1


def test_tasks_do_not_touch_each_other() -> None:
    """Tasks do not touch each other."""
    directory = _directory(_event("snips"), _event("snips2"), _event("snips", retired=True))

    assert directory.resolve("snips2").reference.name == "snips2"
    assert _reason(directory, "snips") is Reason.TASK_RETIRED


@pytest.mark.parametrize("value", [b"", b"{}", b"\xff\xfe", b"null", b'{"v":"1.0","name":"x"}'])
def test_a_bad_event_leaves_its_task_as_it_was(value: bytes) -> None:
    """One bad publisher must not take a served task away."""
    directory = _directory(_event())

    directory.apply(b"banking77", value)

    assert directory.resolve("banking77").reference.revision == 1
    assert directory.num_bad_events == 1


def test_an_event_under_another_tasks_key_is_refused() -> None:
    """An event under another tasks key is refused."""
    directory = _directory(_event("snips"))

    directory.apply(b"snips", encode_task_event(_event("banking77")).value)

    assert _reason(directory, "banking77") is Reason.TASK_UNKNOWN
    assert directory.resolve("snips").reference.name == "snips"
    assert directory.num_bad_events == 1


def test_an_escalated_query_keeps_its_revision_when_the_task_moves_on_or_retires() -> None:
    """An escalated query keeps its revision when the task moves on or retires."""
    began_with = _revision("banking77", 1)
    directory = _directory(_event(revisions=(1,)), _event(revisions=(1, 2), retired=True))

    assert directory.pinned(began_with.reference) == began_with


@pytest.mark.parametrize("digest_changed", [True, False])
def test_an_escalated_query_whose_revision_is_gone_is_refused(digest_changed: bool) -> None:
    """An escalated query whose revision is gone is refused."""
    directory = _directory(_event(revisions=(1,) if digest_changed else (2,)))
    began_with = _revision("banking77", 1).reference
    if digest_changed:
        began_with = dataclasses.replace(began_with, digest="sha256:" + "f" * 64)

    with pytest.raises(MessageError) as raised:
        directory.pinned(began_with)

    assert raised.value.reason is Reason.TASK_UNKNOWN


def test_a_reader_never_sees_a_gap_while_a_task_is_updated() -> None:
    """Updates on one thread, look-ups on another: the name always resolves."""
    events = [
        encode_task_event(_event(revisions=(number,), aliases=(("stable", number),))).value
        for number in (1, 2)
    ]
    directory = _directory(_event(revisions=(1,), aliases=(("stable", 1),)))
    failures: list[MessageError] = []

    done = threading.Event()
    num_look_ups = 0

    def look_up() -> None:
        nonlocal num_look_ups
        while not done.is_set():
            num_look_ups += 1
            try:
                directory.resolve("banking77")
                directory.resolve("banking77:stable")
            except MessageError as error:
                failures.append(error)

    reader = threading.Thread(target=look_up)
    reader.start()
    for turn in range(600):
        directory.apply(b"banking77", events[turn % 2])
    done.set()
    reader.join()

    assert failures == []
    assert num_look_ups > 100
