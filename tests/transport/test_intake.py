"""Between poll and window: bounds, and the guard against windows that skip records."""

from collections.abc import Collection

import pytest

from transport.errors import WindowSkippedRecords
from transport.intake import Intake, IntakeLimits
from transport.records import Partition, Record
from transport.window import FOREVER_S, CountWindow


def _records(num: int, partition: int = 0, size: int = 1) -> list[Record]:
    return [Record("in", partition, i, None, bytes(size), (), 0) for i in range(num)]


class LastFirst(CountWindow):
    """A broken window: gives the newest record first."""

    def take(self) -> list[Record]:
        """Give the newest record."""
        return super().take()[::-1]


class Liar(CountWindow):
    """A broken window: says ready, gives nothing."""

    def take(self) -> list[Record]:
        """Give nothing."""
        return []


class Hoarder(CountWindow):
    """A broken window: keeps what it should forget."""

    def forget(self, partitions: Collection[Partition], /) -> None:
        """Forget nothing."""


def test_full_by_count_and_by_bytes() -> None:
    """Either bound asks for a pause; both must be low for the end of it."""
    by_count = Intake(CountWindow(), IntakeLimits(max_records=4, max_bytes=1000))
    by_bytes = Intake(CountWindow(), IntakeLimits(max_records=100, max_bytes=1000))

    by_count.put(_records(4))
    by_bytes.put(_records(2, size=500))

    assert by_count.is_full
    assert by_bytes.is_full
    assert not by_count.is_low
    assert not by_bytes.is_low
    assert by_count.room == 1
    assert by_bytes.room == 98


def test_low_only_when_nearly_empty() -> None:
    """Hysteresis: pausing costs the prefetched records, so it must not flap."""
    intake = Intake(CountWindow(1), IntakeLimits(max_records=8))
    intake.put(_records(8))
    window_fed = []
    for _ in range(7):
        intake.feed_window(0.0)
        window_fed.append(intake.is_low)
        intake.take()

    assert window_fed == [False, False, False, False, False, True, True]


def test_window_is_fed_until_full_and_no_further() -> None:
    """A ready window still grows until it is taken; the rest stays countable in front of it."""
    window = CountWindow(3)
    intake = Intake(window, IntakeLimits())
    intake.put(_records(1))
    intake.feed_window(0.0)
    assert window.is_ready(0.0)
    intake.put(_records(6)[1:])

    intake.feed_window(0.0)

    assert len(window) == 3
    assert intake.take() == _records(6)[:3]


def test_disordered_window_is_a_bug() -> None:
    """An offset settles everything before it, so records must leave in order."""
    window = LastFirst(2)
    intake = Intake(window, IntakeLimits())
    intake.put(_records(2))
    intake.feed_window(0.0)
    window.add(_records(2)[1], 0.0)

    with pytest.raises(WindowSkippedRecords, match="in/0/1 out of order"):
        intake.take()


def test_empty_unit_is_a_bug() -> None:
    """A window that is ready gives at least one record, or the loop would spin."""
    intake = Intake(Liar(), IntakeLimits())
    intake.put(_records(1))
    intake.feed_window(0.0)

    with pytest.raises(WindowSkippedRecords, match="no record"):
        intake.take()


def test_forgotten_records_are_gone_everywhere() -> None:
    """In front of the window and in it; the other partitions stay."""
    window = CountWindow(10)
    intake = Intake(window, IntakeLimits(max_records=6))
    intake.put(_records(3, partition=0) + _records(3, partition=1))
    intake.feed_window(0.0)

    intake.forget([Partition("in", 0)])
    intake.feed_window(0.0)

    assert not intake.is_full
    assert [record.partition for record in intake.take()] == [1, 1, 1]


def test_window_that_keeps_forgotten_records_is_a_bug() -> None:
    """Records of a partition that left must not be published."""
    intake = Intake(Hoarder(10), IntakeLimits())
    intake.put(_records(1))
    intake.feed_window(0.0)
    intake.forget([Partition("in", 0)])

    with pytest.raises(WindowSkippedRecords):
        intake.take()


def test_count_window_takes_the_oldest() -> None:
    """Units of at most so many records, in order; time changes nothing."""
    window = CountWindow(2)
    for record in _records(3):
        window.add(record, 0.0)

    assert [len(window.take()), len(window.take())] == [2, 1]
    assert not window.is_ready(1e9)
    assert window.wait_s(0.0) == FOREVER_S
    with pytest.raises(ValueError, match="limits of at least 1"):
        CountWindow(0)


def test_count_window_keeps_to_bytes() -> None:
    """A unit of large records holds fewer of them, but at least one."""
    records = _records(4)
    size = records[0].num_bytes
    window = CountWindow(10, max_bytes=2 * size)
    window.add(records[0], 0.0)
    assert not window.is_full()
    for record in records[1:]:
        window.add(record, 0.0)
    assert window.is_full()

    assert [len(window.take()), len(window.take())] == [2, 2]

    small = CountWindow(10, max_bytes=1)
    small.add(records[0], 0.0)
    assert small.is_full()
    assert small.take() == records[:1]
