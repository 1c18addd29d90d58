"""When a window closes, and what it holds then. Time is an argument here."""

import json

import pytest

from messages.strict_msgpack import pack
from scheduler.deadline_hint import deadline_ms_of
from scheduler.window import SchedulingWindow, WindowLimits
from transport.records import Partition, Record
from transport.window import FOREVER_S

WALL_S = 1_700_000_000.0
"""The wall clock of these tests stands still."""
WALL_MS = int(1000 * WALL_S)


def _record(
    value: bytes | None = b"x",
    *,
    offset: int = 0,
    partition: int = 0,
    topic: str = "petstream.queries",
    appended_ms: int = WALL_MS,
) -> Record:
    return Record(topic, partition, offset, None, value, (), appended_ms)


def _window(
    *,
    max_wait_ms: float = 10.0,
    max_rows: int = 100,
    max_tokens: int = 100_000,
    max_bytes: int = 1_000_000,
) -> SchedulingWindow:
    limits = WindowLimits(max_wait_ms, max_rows, max_tokens, max_bytes, deadline_reserve_ms=100.0)
    return SchedulingWindow(limits, wall_clock_s=lambda: WALL_S)


def test_an_empty_window_is_never_ready_and_waits_for_a_record_only() -> None:
    """An empty window is never ready and waits for a record only."""
    window = _window()

    assert not window.is_ready(1e9)
    assert window.wait_s(1e9) == FOREVER_S


def test_it_closes_on_time_counted_from_its_first_record() -> None:
    """It closes on time counted from its first record."""
    window = _window(max_wait_ms=10)

    window.add(_record(offset=0), 5.000)
    window.add(_record(offset=1), 5.009)

    assert not window.is_ready(5.0099)
    assert window.wait_s(5.004) == pytest.approx(0.006)
    assert window.is_ready(5.0101)


def test_the_next_window_counts_its_own_time() -> None:
    """The next window counts its own time."""
    window = _window(max_wait_ms=10)
    window.add(_record(offset=0), 5.0)
    window.take()

    window.add(_record(offset=1), 9.0)

    assert not window.is_ready(9.005)
    assert window.is_ready(9.011)


def test_it_closes_on_rows() -> None:
    """It closes on rows."""
    window = _window(max_rows=3)

    for offset in range(3):
        assert not window.is_ready(0.0)
        window.add(_record(offset=offset), 0.0)

    assert window.is_ready(0.0)
    assert window.wait_s(0.0) == 0.0


def test_it_closes_on_estimated_tokens() -> None:
    """It closes on estimated tokens."""
    window = _window(max_tokens=200)

    window.add(_record(b"w" * 464), 0.0)
    assert not window.is_ready(0.0)
    window.add(_record(b"w" * 464, offset=1), 0.0)

    assert window.is_ready(0.0)


def test_it_closes_on_bytes() -> None:
    """It closes on bytes."""
    window = _window(max_bytes=1000)

    window.add(_record(b"w" * 600), 0.0)
    assert not window.is_ready(0.0)
    window.add(_record(b"w" * 600, offset=1), 0.0)

    assert window.is_ready(0.0)


def test_it_closes_before_the_earliest_deadline_by_the_reserve() -> None:
    """A query that expires in 350 ms must leave 100 ms before that."""
    window = _window(max_wait_ms=5000)

    window.add(_record(pack({"text": "a", "ttl_ms": 350})), 20.0)
    window.add(_record(b"patient", offset=1), 20.0)

    assert not window.is_ready(20.249)
    assert window.wait_s(20.0) == pytest.approx(0.250)
    assert window.is_ready(20.251)


@pytest.mark.parametrize("value", [{"ttl_ms": 50_000}, {"ttl_ms": 0}, {"expires_at_ms": 5}])
def test_a_deadline_that_is_past_is_not_heeded(value: dict[str, int]) -> None:
    """The query is answered with an error anyway; others must not pay for it."""
    window = _window(max_wait_ms=50)

    window.add(_record(pack(value), appended_ms=WALL_MS - 60_000), 20.0)

    assert not window.is_ready(20.049)
    assert window.is_ready(20.051)


@pytest.mark.parametrize(
    "value",
    [
        pack({"ttl_ms": 100}),
        pack({"ttl_ms": 1}),
        pack({"parameters": {"latency_slo_ms": 0.5}}),
        b'a text about "ttl_ms": 7',
    ],
)
def test_a_near_deadline_leaves_a_moment_for_company(value: bytes) -> None:
    """It may be one that cannot be met, or only words of a text."""
    window = _window(max_wait_ms=50)

    window.add(_record(value), 20.0)
    window.add(_record(b"company", offset=1), 20.0005)

    assert not window.is_ready(20.0009)
    assert window.is_ready(20.0011)
    assert len(window.take()) == 2


def test_a_stream_of_near_deadlines_makes_no_batches_of_one_row() -> None:
    """One caller's haste: of 40 queries/ms every tenth is in a hurry, and windows hold many."""
    window = _window(max_wait_ms=4)
    sizes = []
    for number in range(400):
        now_s = 20.0 + number * 0.000_025
        if window.is_ready(now_s):
            sizes.append(len(window.take()))
        value = pack({"ttl_ms": 5}) if number % 10 == 0 else b"patient"
        window.add(_record(value, offset=number), now_s)

    assert len(sizes) >= 5
    assert min(sizes) >= 40


def test_a_near_deadline_makes_nobody_wait_longer() -> None:
    """The moment for company is not longer than the window."""
    window = _window(max_wait_ms=0)

    window.add(_record(pack({"ttl_ms": 5})), 20.0)

    assert window.is_ready(20.0)


def test_taking_empties_it_in_order_of_arrival() -> None:
    """Taking empties it in order of arrival."""
    window = _window()
    records = [_record(offset=offset, partition=offset % 2) for offset in range(6)]
    for record in records:
        window.add(record, 0.0)

    assert window.take() == records
    assert len(window) == 0
    assert not window.is_ready(1e9)


def test_partitions_that_left_are_forgotten_with_their_bytes() -> None:
    """Partitions that left are forgotten with their bytes."""
    window = _window(max_bytes=1000)
    window.add(_record(b"w" * 900, partition=1), 0.0)
    window.add(_record(b"w" * 200, partition=2), 0.0)
    assert window.is_ready(0.0)

    window.forget([Partition("petstream.queries", 1), Partition("petstream.escalations", 2)])

    assert not window.is_ready(0.0)
    assert [record.partition for record in window.take()] == [2]


@pytest.mark.parametrize(
    ("value", "left_ms"),
    [
        (pack({"ttl_ms": 5}), 5),
        (pack({"ttl_ms": 200}), 200),
        (pack({"ttl_ms": 60_000}), 60_000),
        (pack({"ttl_ms": 604_800_000}), 604_800_000),
        (pack({"parameters": {"latency_slo_ms": 30.5}}), 30.5),
        (b"\xaelatency_slo_ms\xca\x41\xf4\x00\x00", 30.5),
        (pack({"expires_at_ms": WALL_MS + 77}), 77),
        (pack({"deadline_ms": WALL_MS + 78}), 78),
        (pack({"ttl_ms": 900, "parameters": {"latency_slo_ms": 40}}), 40),
        (json.dumps({"text": "a", "ttl_ms": 350}).encode(), 350),
        (b'{"ttl_ms" : 1250.5}', 1250.5),
    ],
)
def test_a_deadline_is_found_in_either_encoding(value: bytes, left_ms: float) -> None:
    """A deadline is found in either encoding."""
    found_ms = deadline_ms_of(_record(value))

    assert found_ms is not None
    assert found_ms - WALL_MS == pytest.approx(left_ms)


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"plain text",
        b"ttl_ms",
        b"ttl_ms\xce\x00",
        b"ttl_ms\xcb" + b"\xff" * 8,
        b"ttl_ms\xcb\xc0" + b"\x00" * 7,
        b'"ttl_ms": "soon"',
        b'"ttl_ms": -5',
        b'"ttl_ms"',
        pack({"ttl_ms": None}),
        pack({"ttl_ms": -5}),
        pack({"ttl_ms": "5"}),
    ],
)
def test_what_is_no_deadline_is_no_hint(value: bytes | None) -> None:
    """Nor does it raise: nothing that a caller writes may stop the Kafka thread."""
    assert deadline_ms_of(_record(value)) is None


@pytest.mark.parametrize("limits", [{"max_wait_ms": -1.0}, {"max_rows": 0}, {"max_bytes": 0}])
def test_limits_that_could_never_work_are_refused(limits: dict[str, int]) -> None:
    """Limits that could never work are refused."""
    with pytest.raises(ValueError, match="expected"):
        WindowLimits(**limits)
