"""The compute threads, the units in flight, and how many are cut ahead."""

import threading
from collections.abc import Sequence
from time import monotonic

import pytest

from transport.compute import ComputeThreads, Stage
from transport.errors import StageFailed, StaleAssignment, VersionMismatch
from transport.records import Claim, OutgoingRecord, Partition, Record
from transport.units import UnitsInFlight

LIMIT_S = 20.0


class Echo:
    """Echoes; a record with the value `wait` waits for the gate, `fail` raises."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.seen: list[list[tuple[int, int]]] = []

    def process(self, records: Sequence[Record], /) -> Sequence[OutgoingRecord]:
        """Echo."""
        self.seen.append([(record.partition, record.offset) for record in records])
        self.entered.set()
        if any(record.value == b"wait" for record in records):
            assert self.gate.wait(LIMIT_S)
        if any(record.value == b"fail" for record in records):
            raise ZeroDivisionError("bad batch")
        return [OutgoingRecord("out", record.value) for record in records]


def _record(offset: int, partition: int = 0, value: bytes = b"x") -> Record:
    return Record("in", partition, offset, None, value, (), 0)


def _wait_all(compute: ComputeThreads, units: UnitsInFlight) -> None:
    while units.num_computing:
        compute.wait(0.1)


def _flight(
    stage: Stage, owned: Sequence[int] = (0, 1), num_threads: int = 1
) -> tuple[ComputeThreads, UnitsInFlight]:
    compute = ComputeThreads(stage, num_threads)
    return compute, UnitsInFlight(compute, lambda p: 7 if p.partition in owned else None)


def test_units_finish_in_order_of_cutting() -> None:
    """A finished unit waits for those before it: offsets settle everything below them."""
    stage = Echo()
    compute, units = _flight(stage)
    units.submit([_record(0, value=b"wait")])
    units.submit([_record(1)])

    assert units.finished() == []
    stage.gate.set()
    _wait_all(compute, units)

    assert [unit.records[0].offset for unit in units.finished()] == [0, 1]
    assert [unit.claims for unit in units.finished()] == [
        [Claim(Partition("in", 0), 7, 1)],
        [Claim(Partition("in", 0), 7, 2)],
    ]
    units.settled(1)
    assert len(units) == 1
    compute.close()


def test_a_second_thread_takes_the_next_unit_meanwhile() -> None:
    """It may be done first, and is settled after the one before it all the same."""
    stage = Echo()
    compute, units = _flight(stage, num_threads=2)
    units.submit([_record(0, value=b"wait")])
    assert stage.entered.wait(LIMIT_S)
    units.submit([_record(1)])
    deadline_s = monotonic() + LIMIT_S
    while units.num_computing > 1:
        assert monotonic() < deadline_s, "the second unit waits for the first"
        compute.wait(0.1)

    assert units.finished() == []
    stage.gate.set()
    _wait_all(compute, units)
    assert [unit.records[0].offset for unit in units.finished()] == [0, 1]
    compute.close()


def test_closing_ends_every_thread() -> None:
    """None stays behind to keep a stage, or a process, alive."""
    compute, units = _flight(Echo(), num_threads=2)
    units.submit([_record(0)])
    compute.close()

    deadline_s = monotonic() + LIMIT_S
    while any(thread.is_alive() for thread in compute.threads):
        assert monotonic() < deadline_s
        compute.wait(0.01)
    assert not units.num_computing


def test_claims_are_the_last_of_each_partition() -> None:
    """A unit of several partitions settles each up to its last record."""
    stage = Echo()
    compute, units = _flight(stage)
    units.submit([_record(3), _record(8, 1), _record(4)])
    _wait_all(compute, units)

    [unit] = units.finished()
    assert set(unit.claims) == {Claim(Partition("in", 0), 7, 5), Claim(Partition("in", 1), 7, 9)}
    compute.close()


def test_forgotten_work_is_dropped_and_the_rest_done_again() -> None:
    """A mixed unit keeps its place with what stays ours; a queued one is never begun."""
    stage = Echo()
    compute, units = _flight(stage)
    units.submit([_record(0, 0, b"wait"), _record(0, 1)])
    units.submit([_record(1, 1)])
    units.submit([_record(1, 0)])
    assert stage.entered.wait(LIMIT_S)
    assert units.is_waiting_for([Partition("in", 1)])

    units.forget([Partition("in", 1)])
    stage.gate.set()
    _wait_all(compute, units)

    assert [[(r.partition, r.offset) for r in unit.records] for unit in units.finished()] == [
        [(0, 0)],
        [(0, 1)],
    ]
    assert stage.seen == [[(0, 0), (1, 0)], [(0, 1)], [(0, 0)]]
    assert not units.is_waiting_for([Partition("in", 0)])
    compute.close()


def test_repeated_unit_holds_back_those_behind_it() -> None:
    """What is done again keeps its place: a later unit, though finished, settles after it."""
    stage = Echo()
    compute, units = _flight(stage)
    units.submit([_record(0, 0), _record(0, 1)])
    units.submit([_record(1, 0)])
    _wait_all(compute, units)
    units.submit([_record(2, 0, b"wait")])

    units.forget([Partition("in", 1)])

    assert units.finished() == []
    stage.gate.set()
    _wait_all(compute, units)
    assert [unit.records[0].offset for unit in units.finished()] == [0, 1, 2]
    compute.close()


def test_waiting_counts_units_before() -> None:
    """A finished unit behind an unfinished one of another partition cannot be published yet."""
    stage = Echo()
    compute, units = _flight(stage)
    units.submit([_record(0, 0, b"wait")])
    units.submit([_record(0, 1)])

    assert units.is_waiting_for([Partition("in", 1)])
    stage.gate.set()
    _wait_all(compute, units)
    assert not units.is_waiting_for([Partition("in", 1)])
    compute.close()


def test_failure_names_the_records() -> None:
    """The error says which records the stage failed on, and why."""
    stage = Echo()
    compute, units = _flight(stage)
    units.submit([_record(5), _record(6, value=b"fail")])
    _wait_all(compute, units)

    with pytest.raises(StageFailed, match=r"in/0/5 to in/0/6: ZeroDivisionError: bad batch"):
        units.finished()[0].outgoing()
    compute.close()


def test_record_of_another_version_is_told_as_it_is() -> None:
    """It is no bug of the stage: the error says what to upgrade."""

    class OlderStage:
        def process(self, records: Sequence[Record], /) -> Sequence[OutgoingRecord]:
            raise VersionMismatch(records[0].source, records[0].offset, "2.0")

    compute, units = _flight(OlderStage())
    units.submit([_record(5)])
    _wait_all(compute, units)

    with pytest.raises(VersionMismatch, match=r"in/0/5 was written by version 2\.0") as caught:
        units.finished()[0].outgoing()
    assert caught.value.version == "2.0"
    compute.close()


def test_unowned_record_is_refused() -> None:
    """A window that held a record of a partition that left is found out before compute."""
    stage = Echo()
    compute, units = _flight(stage, owned=[0])

    with pytest.raises(StaleAssignment, match="must drop such records"):
        units.submit([_record(0, partition=1)])
    assert stage.seen == []
    compute.close()


def test_duration_is_measured() -> None:
    """The smoothed time of a unit is known after the first one, and not before."""
    stage = Echo()
    compute, units = _flight(stage)
    assert compute.unit_s == 0.0

    units.submit([_record(0)])
    _wait_all(compute, units)

    assert 0.0 < compute.unit_s < LIMIT_S
    compute.close()
