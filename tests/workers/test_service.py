"""What a worker does with the tasks topic."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from messages.task_event import TaskEvent, TaskLevel, TaskReference, TaskRevision
from messages.task_event_codec import encode_task_event
from tasks.store import TaskStore
from workers.engine import Engine
from workers.service import memory_follows_topic
from workers.task_manager import TaskManager


class Recorder(TaskManager):
    """A manager that only notes what it is told."""

    told: list[tuple[str, TaskReference | str]]

    def preload(self, reference: TaskReference) -> None:
        """Note it."""
        self.told.append(("preload", reference))

    def retire(self, name: str) -> None:
        """Note it."""
        self.told.append(("retire", name))


@pytest.fixture
def recorder(tmp_path: Path, small_engine: Engine) -> Iterator[Recorder]:
    manager = Recorder(TaskStore(tmp_path), small_engine, level=0, memory_limit_bytes=1)
    manager.told = []
    yield manager
    manager.close()


def event(*, retired: bool) -> bytes:
    """The record of a task of two revisions."""
    revisions = tuple(
        TaskRevision(
            TaskReference("weather", number, "sha256:" + 64 * str(number)),
            "single_label",
            2,
            takes_pair=False,
            levels=(TaskLevel(0, "minilm-l3", "bitfit", 128),),
        )
        for number in (1, 2)
    )
    return encode_task_event(TaskEvent("weather", retired, revisions)).value


def test_the_newest_revision_of_a_live_task_is_loaded(recorder: Recorder) -> None:
    """It is what queries get that name no revision."""
    memory_follows_topic(recorder)(b"weather", event(retired=False))

    assert recorder.told == [("preload", TaskReference("weather", 2, "sha256:" + 64 * "2"))]


@pytest.mark.parametrize("is_deleted", [False, True], ids=["retired", "deleted"])
def test_a_task_that_serves_no_more_leaves(recorder: Recorder, is_deleted: bool) -> None:
    """Whether its record says so or was deleted."""
    memory_follows_topic(recorder)(b"weather", None if is_deleted else event(retired=True))

    assert recorder.told == [("retire", "weather")]


def test_bytes_that_are_no_event_change_nothing(recorder: Recorder) -> None:
    """The topic's other records still count."""
    memory_follows_topic(recorder)(b"weather", b"\xc1")

    assert recorder.told == []
