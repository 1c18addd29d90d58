"""The file of the tasks that were in use: a hint that survives the worker and never stops it."""

from pathlib import Path

import pytest

from messages.task_event import TaskReference
from workers.recent_tasks import MAX_TASKS, WRITE_EVERY_S, RecentTasks


def reference(number: int) -> TaskReference:
    return TaskReference(f"task-{number}", 1 + number, f"sha256:{number:064x}")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "recent.json"


def test_the_next_worker_reads_what_was_used_in_its_order(path: Path) -> None:
    """What was loaded and not asked for does not count."""
    RecentTasks(path).write([(reference(2), True), (reference(7), False), (reference(1), True)])

    assert RecentTasks(path).read() == [reference(2), reference(1)]


def test_a_worker_that_nobody_asked_forgets_nothing(path: Path) -> None:
    """What it loaded because the file said so stays in the file; what is not in memory does not."""
    RecentTasks(path).write([(reference(1), True), (reference(2), True)])
    second = RecentTasks(path)
    second.read()

    second.write([(reference(3), True), (reference(1), False), (reference(4), False)])

    assert RecentTasks(path).read() == [reference(3), reference(1)]


def test_of_too_many_the_newest_are_kept(path: Path) -> None:
    """A start loads so many at most, and the file can be read."""
    RecentTasks(path).write([(reference(number), True) for number in range(MAX_TASKS + 1)])

    assert RecentTasks(path).read() == [reference(number) for number in range(MAX_TASKS)]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff",
        b"[]",
        b'{"v":"1.0","tasks":[{"name":"../x","revision":1,"digest":"sha256:0"}]}',
        b'{"v":"9.0","tasks":[]}',
        b" " * ((1 << 20) + 1),
    ],
    ids=["empty", "not text", "not an object", "bad name", "later version", "too large"],
)
def test_a_file_that_cannot_be_used_is_none(
    path: Path, caplog: pytest.LogCaptureFixture, raw: bytes
) -> None:
    """It is logged, and written anew."""
    path.parent.mkdir()
    path.write_bytes(raw)
    recent = RecentTasks(path)

    assert recent.read() == []
    assert "is not used" in caplog.text
    recent.write([(reference(1), True)])
    assert RecentTasks(path).read() == [reference(1)]


def test_a_first_start_has_no_file_and_nothing_to_say(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As every worker's first."""
    assert RecentTasks(path).read() == []
    assert caplog.text == ""


def test_a_folder_that_cannot_be_written_stops_nothing(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged."""
    path.parent.write_text("a file where the folder should be")

    RecentTasks(path).write([(reference(1), True)])

    assert "cannot be written" in caplog.text


def test_writing_is_due_every_half_minute(path: Path) -> None:
    """Not at every turn of the loop."""
    now_s = 100.0
    recent = RecentTasks(path, lambda: now_s)

    assert not recent.is_due()
    now_s += WRITE_EVERY_S
    assert recent.is_due()
    assert not recent.is_due()
