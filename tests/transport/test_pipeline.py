"""What only the loop itself shows: how far ahead it works, and how it stops."""

import threading
import time
from collections.abc import Callable, Sequence

import pytest

from transport.memory import MemoryLog
from transport.pipeline import PipelineLimits, run_pipeline
from transport.records import OutgoingRecord, Record
from transport.window import CountWindow

LIMIT_S = 20.0


class Timed:
    """Takes a while for each unit, and notes when it was idle in between."""

    def __init__(self, unit_s: float) -> None:
        self._unit_s = unit_s
        self.busy: list[tuple[float, float]] = []

    def process(self, records: Sequence[Record], /) -> Sequence[OutgoingRecord]:
        """Work."""
        started_s = time.monotonic()
        time.sleep(self._unit_s)
        self.busy.append((started_s, time.monotonic()))
        return [OutgoingRecord("out", record.value) for record in records]


class Hanging(Timed):
    """Holds every unit until the gate opens, and notes the units' sizes."""

    def __init__(self) -> None:
        super().__init__(0.0)
        self.gate = threading.Event()
        self.sizes: list[int] = []

    def process(self, records: Sequence[Record], /) -> Sequence[OutgoingRecord]:
        """Wait, then work."""
        self.sizes.append(len(records))
        assert self.gate.wait(LIMIT_S)
        return super().process(records)


def _log(num_records: int) -> MemoryLog:
    log = MemoryLog()
    log.create_topic("in", 2)
    log.create_topic("out", 1)
    for number in range(num_records):
        log.append("in", b"%d" % number, partition=number % 2)
    return log


def _run(
    log: MemoryLog,
    stage: Timed,
    stop: threading.Event,
    limits: PipelineLimits,
) -> threading.Thread:
    session = log.session("group", ["in"], "slot")
    thread = threading.Thread(
        target=run_pipeline,
        args=(session, CountWindow(1), stage),
        kwargs={"stop": stop, "limits": limits},
    )
    thread.start()
    return thread


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.002)


def _wait_for_answers(log: MemoryLog, num_answers: int) -> None:
    deadline_s = time.monotonic() + LIMIT_S
    while len(log.read("out")) < num_answers:
        assert time.monotonic() < deadline_s, f"{len(log.read('out'))} of {num_answers} answers"
        time.sleep(0.005)


def test_compute_goes_on_while_a_commit_takes_long() -> None:
    """Once a commit was slow, more units are cut ahead than otherwise, and computed during it."""
    num_records = 300
    log, stage, stop = _log(num_records), Timed(0.002), threading.Event()
    computed_during: list[int] = []

    def slow_commit() -> None:
        if not computed_during:
            time.sleep(0.05)  # 25 units' time: what the pipeline learns from
            computed_during.append(0)
            return
        before = len(stage.busy)
        deadline_s = time.monotonic() + 1.0
        while len(stage.busy) < before + 10 and time.monotonic() < deadline_s:
            time.sleep(0.001)
        computed_during.append(len(stage.busy) - before)
        if max(computed_during) >= 10 or len(computed_during) >= 5:
            stop.set()

    session = log.session("group", ["in"], "slot", slow_commit)
    run_pipeline(session, CountWindow(1), stage, stop=stop)

    # At most two units are ahead without the measurement.
    assert max(computed_during) >= 10


def test_units_ahead_are_bounded() -> None:
    """A stage that hangs gets no more than the units it may have ahead."""
    log, stop = _log(50), threading.Event()
    stage = Hanging()

    class Watched(CountWindow):
        num_taken = 0

        def take(self) -> list[Record]:
            Watched.num_taken += 1
            return super().take()

    thread = threading.Thread(
        target=run_pipeline,
        args=(log.session("group", ["in"], "slot"), Watched(1), stage),
        kwargs={"stop": stop, "max_units_ahead": 3},
    )
    thread.start()
    deadline_s = time.monotonic() + LIMIT_S
    while Watched.num_taken < 3:
        assert time.monotonic() < deadline_s
        time.sleep(0.005)
    turns = 50
    while turns:
        turns -= 1
        assert Watched.num_taken == 3
        time.sleep(0.002)
    stage.gate.set()
    _wait_for_answers(log, 50)
    stop.set()
    thread.join(LIMIT_S)

    assert Watched.num_taken == 50


def test_what_comes_while_the_stage_is_busy_is_computed_together() -> None:
    """Small units do not queue up behind a slow stage: they are joined to one."""
    log, stop = _log(2), threading.Event()
    stage = Hanging()
    window = CountWindow(100)
    thread = threading.Thread(
        target=run_pipeline,
        args=(log.session("group", ["in"], "slot"), window, stage),
        kwargs={"stop": stop, "max_units_ahead": 1},
    )
    thread.start()
    _wait_until(lambda: stage.sizes != [])
    for number in range(30):
        log.append("in", b"%d" % (2 + number), partition=number % 2)
    _wait_until(lambda: len(window) + sum(stage.sizes) == 32)
    stage.gate.set()
    _wait_for_answers(log, 32)
    stop.set()
    thread.join(LIMIT_S)

    assert len(stage.sizes) == 2
    assert sum(stage.sizes) == 32


def test_a_busy_stage_is_not_looked_after_all_the_time() -> None:
    """The loop takes its turns on the stage's cores: some tens a second while a unit computes."""
    log, stage, stop = _log(1), Hanging(), threading.Event()
    turns: list[float] = []
    thread = threading.Thread(
        target=run_pipeline,
        args=(log.session("group", ["in"], "slot"), CountWindow(1), stage),
        kwargs={"stop": stop, "on_turn": lambda: turns.append(time.monotonic())},
    )
    thread.start()
    _wait_until(lambda: bool(stage.sizes))
    first, began_s = len(turns), time.monotonic()
    _wait_until(lambda: len(turns) >= first + 20)
    took_s = time.monotonic() - began_s
    log.append("in", b"held back while another computes", partition=0)
    log.append("in", b"and one more", partition=0)
    log.append("in", b"that the window holds", partition=0)
    held, began_s = len(turns), time.monotonic()
    _wait_until(lambda: len(turns) >= held + 20)
    took_with_a_window_s = time.monotonic() - began_s
    stage.gate.set()
    _wait_for_answers(log, 4)
    stop.set()
    thread.join(LIMIT_S)

    assert took_s > 20 * 0.015
    assert took_with_a_window_s > 20 * 0.015


def test_slow_commits_come_less_often() -> None:
    """Between commits of a busy broker there is at least as long again without one."""
    log, stop = _log(400), threading.Event()
    ended_s: list[float] = []
    gaps_s: list[float] = []

    def slow_commit() -> None:
        if ended_s:
            gaps_s.append(time.monotonic() - ended_s[-1])
        time.sleep(0.05)
        ended_s.append(time.monotonic())
        if len(gaps_s) >= 5:
            stop.set()

    session = log.session("group", ["in"], "slot", slow_commit)
    run_pipeline(session, CountWindow(1), Timed(0.001), stop=stop, commit_interval_ms=1.0)

    assert min(gaps_s) >= 0.045


def test_stop_gives_up_on_a_hanging_stage() -> None:
    """A stop does not wait for ever; the unfinished unit stays unsettled for the next owner."""
    log, stop = _log(1), threading.Event()
    stage = Timed(5.0)
    limits = PipelineLimits(stop_drain_s=0.1)

    thread = _run(log, stage, stop, limits)
    deadline_s = time.monotonic() + LIMIT_S
    while not log.owners("group"):
        assert time.monotonic() < deadline_s
        time.sleep(0.005)
    stop.set()
    thread.join(3.0)

    assert not thread.is_alive()
    assert log.read("out") == []
    assert log.committed_offsets("group") == {}


def test_every_turn_is_told() -> None:
    """A health file is renewed by the loop itself, idle or busy."""
    log, stop = _log(0), threading.Event()
    turns: list[float] = []

    def on_turn() -> None:
        turns.append(time.monotonic())
        if len(turns) >= 5:
            stop.set()

    run_pipeline(
        log.session("group", ["in"], "slot"),
        CountWindow(1),
        Timed(0.0),
        stop=stop,
        on_turn=on_turn,
    )

    assert len(turns) >= 5


@pytest.mark.parametrize("num_members", [1, 3])
def test_members_of_one_group_leave_no_record_behind(num_members: int) -> None:
    """In memory, any number of members settle everything between them."""
    log, stop = _log(200), threading.Event()
    threads = []
    for number in range(num_members):
        session = log.session("group", ["in"], f"slot-{number}")
        threads.append(
            threading.Thread(
                target=run_pipeline,
                args=(session, CountWindow(7), Timed(0.0)),
                kwargs={"stop": stop},
            )
        )
        threads[-1].start()
    _wait_for_answers(log, 200)
    stop.set()
    for thread in threads:
        thread.join(LIMIT_S)

    assert sorted(int(record.value or b"") for record in log.read("out")) == list(range(200))
    assert sum(log.committed_offsets("group").values()) == 200
