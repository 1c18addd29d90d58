"""The one consume-process-produce loop, of schedulers and workers alike.

    session.poll -> intake -> window -> units -> stage (compute threads)
                                          └────> one transaction for all finished units

While one transaction commits, the next units compute: before a commit begins, as many units are
handed to the compute threads as outlast it. At other times only a few are ahead, so that what comes
while the stage is busy gathers in the window and is computed together.

Order and ownership: units settle in the order in which they were cut, so a committed offset
promises everything before it. When partitions leave, their finished work is published first and
only then forgotten; what is forgotten is done again by the next owner.
"""

import logging
import math
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from time import monotonic

from transport.compute import ComputeThreads, Stage
from transport.deadline import Deadline
from transport.errors import TooManyAborts, TransactionAborted
from transport.intake import Intake, IntakeLimits
from transport.port import SessionPort
from transport.records import Partition, latest_claims
from transport.units import Unit, UnitsInFlight
from transport.window import Window

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PipelineLimits:
    """The bounds of one pipeline."""

    num_compute_threads: int = 1
    """Units that the stage has at once; more than one for a stage that several threads may call."""
    max_units_ahead: int = 2
    """Units being computed or waiting for it; more only before a commit that outlasts them."""
    max_units_per_commit: int = 256
    """Finished units that may wait for one transaction."""
    commit_interval_ms: float = 20.0
    """Least time from the start of one transaction to the start of the next; where commits are
    slow twice as long as the last one took, within bounds."""
    revoke_drain_s: float = 2.0
    """How long a rebalance may wait for work that is nearly done."""
    stop_drain_s: float = 20.0
    """How long a stop may take for the work in flight."""
    max_consecutive_aborts: int = 3
    intake: IntakeLimits = field(default_factory=IntakeLimits)


_IDLE_POLL_S = 0.1
"""Longest blocking poll, so that a stop is noticed."""
_BUSY_WAIT_S = 0.02
"""Longest wait for the compute threads, or for room downstream, before the consumer is looked at
again. A unit that finishes ends the wait, so no answer is later for it; a turn of the loop takes
the stage 0.15 ms of its core."""
_MAX_UNITS_AHEAD = 64
_MAX_COMMIT_INTERVAL_S = 0.25
"""However slow commits are: one that waited for a broker's restart says nothing of the next."""
_RETRY_AFTER_S = (0.2, 1.0)
"""Waits after the first and second abort, long enough to hear of a rebalance that caused it."""


def run_pipeline(
    session: SessionPort,
    window: Window,
    stage: Stage,
    *,
    stop: threading.Event,
    max_units_ahead: int = 2,
    commit_interval_ms: float = 20.0,
    may_take: Callable[[], bool] = lambda: True,
    on_turn: Callable[[], None] = lambda: None,
    limits: PipelineLimits | None = None,
) -> None:
    """Run until `stop` is set, then finish the work in flight, publish it and leave the group.

    Args:
        session: Opened and closed here; belongs to the calling thread.
        window: Makes units of records.
        stage: Makes records to publish of units.
        stop: Ends the loop.
        max_units_ahead: Units being computed or waiting for it.
        commit_interval_ms: Least time between the starts of two transactions.
        may_take: False holds new units back, for example while too much work is outstanding
            downstream; records then stay in their topic.
        on_turn: Called on every turn of the loop, at least ten times a second: proof of life.
        limits: All bounds at once, instead of the two above.

    Raises:
        StageFailed: If the stage raised; nothing of that unit is committed.
        VersionMismatch: If a record is of another major version; likewise.
        SessionError: If the session cannot go on. Restarting the process is safe and loses nothing.
    """
    if limits is None:
        limits = PipelineLimits(
            max_units_ahead=max_units_ahead, commit_interval_ms=commit_interval_ms
        )
    _Pipeline(session, window, stage, may_take, on_turn, limits).run(stop)


class _Pipeline:
    """The loop's state. `drain` and `forget` are called back from inside `session.poll`."""

    def __init__(
        self,
        session: SessionPort,
        window: Window,
        stage: Stage,
        may_take: Callable[[], bool],
        on_turn: Callable[[], None],
        limits: PipelineLimits,
    ) -> None:
        self._session = session
        self._window = window
        self._may_take = may_take
        self._on_turn = on_turn
        self._limits = limits
        self._compute = ComputeThreads(stage, limits.num_compute_threads)
        self._intake = Intake(window, limits.intake)
        self._units = UnitsInFlight(self._compute, session.epoch)
        self._is_paused = False
        self._next_commit_s = 0.0
        self._commit_s = 0.0
        self._num_aborts = 0

    def run(self, stop: threading.Event) -> None:
        """Loop until stopped, then drain; leave the group in any case."""
        deadline = None
        try:
            self._session.open(self)
            while not stop.is_set():
                self._on_turn()
                self._take_in()
                self._cut_units(self._limits.max_units_ahead)
                self._settle_finished(may_cut=True)
            deadline = Deadline(self._limits.stop_drain_s)
            self._finish(deadline)
        finally:
            self._compute.close()
            self._session.close(deadline or Deadline(self._limits.revoke_drain_s))

    def drain(self, partitions: Collection[Partition]) -> None:
        """Publish what is finished, or nearly so, of partitions about to leave."""
        deadline = Deadline(self._limits.revoke_drain_s)
        while self._units.is_waiting_for(partitions) and not deadline.has_passed:
            self._compute.wait(min(deadline.left_s, 0.1))
        units = self._units.finished()
        if not any(unit.touches(partitions) for unit in units):
            return
        try:
            self._publish(units)
        except TransactionAborted as error:
            logger.warning("finished work of leaving partitions is done again elsewhere: %s", error)

    def forget(self, partitions: Collection[Partition]) -> None:
        """Drop what is left of partitions that left."""
        self._intake.forget(partitions)
        self._units.forget(partitions)

    def _take_in(self) -> None:
        """Read records, waiting for whatever comes first: a record, an answer or a due time."""
        self._regulate()
        if self._units.num_computing:
            self._compute.wait(self._wait_s())
            records = self._session.poll(self._intake.room, 0.0)
        else:
            records = self._session.poll(self._intake.room, self._wait_s())
        self._intake.put(records)

    def _regulate(self) -> None:
        """Pause when the intake is full, resume when it is nearly empty."""
        if self._intake.is_full and not self._is_paused:
            self._session.pause()
            self._is_paused = True
        elif self._is_paused and self._intake.is_low:
            self._session.resume()
            self._is_paused = False

    def _wait_s(self) -> float:
        now_s = monotonic()
        is_ready = self._window.is_ready(now_s)  # and held back, by may_take or by units ahead
        is_busy = is_ready or self._units.num_computing > 0
        waits_s = [_BUSY_WAIT_S if is_busy else _IDLE_POLL_S]
        if not is_ready:
            waits_s.append(self._window.wait_s(now_s))
        if self._units.finished():
            waits_s.append(self._next_commit_s - now_s)
        return max(0.0, min(waits_s))

    def _cut_units(self, max_computing: int) -> None:
        now_s = monotonic()
        self._intake.feed_window(now_s)
        while (
            len(self._units) < self._limits.max_units_per_commit
            and self._units.num_computing < max_computing
            and self._window.is_ready(now_s)
            and self._may_take()
        ):
            self._units.submit(self._intake.take())
            self._intake.feed_window(now_s)

    def _units_for_a_commit(self) -> int:
        """Return how many units outlast a commit, so that the stage never idles for one."""
        least = self._limits.max_units_ahead
        if self._compute.unit_s <= 0.0:
            return least
        num_threads = len(self._compute.threads)
        enough = num_threads + math.ceil(num_threads * self._commit_s / self._compute.unit_s)
        return max(least, min(enough, _MAX_UNITS_AHEAD))

    def _settle_finished(self, *, may_cut: bool) -> None:
        """Publish all finished units in one transaction, when one is due.

        Args:
            may_cut: Whether new units may be begun, to be computed meanwhile.
        """
        if monotonic() < self._next_commit_s:
            return
        units = self._units.finished()
        if not units:
            return
        if may_cut:
            self._cut_units(self._units_for_a_commit())
        try:
            self._publish(units)
        except TransactionAborted as error:
            self._note_abort(error)
        else:
            self._num_aborts = 0

    def _publish(self, units: list[Unit]) -> None:
        outgoing = [record for unit in units for record in unit.outgoing()]
        claims = latest_claims(claim for unit in units for claim in unit.claims)
        started_s = monotonic()
        self._session.publish(outgoing, claims)
        took_s = monotonic() - started_s
        self._units.settled(len(units))
        # Where brokers are busy, fewer and larger transactions: at most half the time in commits.
        longer_s = min(2 * took_s, _MAX_COMMIT_INTERVAL_S)
        self._next_commit_s = started_s + max(self._limits.commit_interval_ms / 1000, longer_s)
        # A slow commit is remembered for some dozens of later ones.
        self._commit_s = max(took_s, 0.95 * self._commit_s)

    def _note_abort(self, error: TransactionAborted) -> None:
        """Keep the answers in memory and try again after the next polls, but not for ever."""
        self._num_aborts += 1
        if self._num_aborts >= self._limits.max_consecutive_aborts:
            raise TooManyAborts(
                f"{self._num_aborts} transactions in a row were aborted, the last one: {error}; "
                "restart the process, nothing is lost"
            ) from error
        wait_s = _RETRY_AFTER_S[min(self._num_aborts, len(_RETRY_AFTER_S)) - 1]
        self._next_commit_s = monotonic() + wait_s
        logger.warning("transaction aborted, again in %.1f s: %s", wait_s, error)

    def _finish(self, deadline: Deadline) -> None:
        """Publish the units in flight; what is not finished in time is left to the next owner."""
        self._session.pause()
        while len(self._units) and not deadline.has_passed:
            self._on_turn()
            self._compute.wait(min(_BUSY_WAIT_S, deadline.left_s))
            self._session.poll(1, 0.0)
            self._settle_finished(may_cut=False)
        if len(self._units):
            logger.warning(
                "stopped with %d units unfinished; they are done again", len(self._units)
            )
