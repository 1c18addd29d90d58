"""Units of work in flight: cut from the window, computed, settled in order."""

from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from transport.compute import Answer, ComputeThreads
from transport.errors import StageFailed, StaleAssignment, VersionMismatch
from transport.records import Claim, OutgoingRecord, Partition, Record, latest_claims


@dataclass(frozen=True, slots=True)
class Unit:
    """Records that are processed together, the claims they carry, and their answer to come."""

    records: Sequence[Record]
    claims: Sequence[Claim]
    answer: Answer

    @property
    def is_done(self) -> bool:
        """Whether the stage is through with it."""
        return self.answer.done()

    def touches(self, partitions: Collection[Partition]) -> bool:
        """Tell whether a record of one of these partitions is in it."""
        return any(claim.source in partitions for claim in self.claims)

    def outgoing(self) -> Sequence[OutgoingRecord]:
        """Return what the stage made of it.

        Raises:
            StageFailed: If the stage raised.
            VersionMismatch: If the stage met a record of another version.
        """
        error = self.answer.exception()
        if error is None:
            return self.answer.result()
        if isinstance(error, VersionMismatch):
            raise error
        first, last = self.records[0], self.records[-1]
        raise StageFailed(
            f"the stage failed on {len(self.records)} records, {first.source}/{first.offset} to "
            f"{last.source}/{last.offset}: {type(error).__name__}: {error}; nothing of them is "
            "committed, they are read again after the restart"
        ) from error


class UnitsInFlight:
    """All units from cut to settled, in the order of their cutting.

    Settling in that order keeps each partition's committed offset a promise about everything
    before it.
    """

    def __init__(self, compute: ComputeThreads, epoch: Callable[[Partition], int | None]) -> None:
        self._compute = compute
        self._epoch = epoch
        self._units: deque[Unit] = deque()

    def __len__(self) -> int:
        return len(self._units)

    @property
    def num_computing(self) -> int:
        """Units that the stage is not yet through with."""
        return sum(not unit.is_done for unit in self._units)

    def submit(self, records: Sequence[Record]) -> None:
        """Hand a unit to the compute threads.

        Raises:
            StaleAssignment: If a record is of a partition that is not owned: a bug in the window.
        """
        self._units.append(self._make(records))

    def finished(self) -> list[Unit]:
        """Return the longest finished run of units from the oldest on."""
        done: list[Unit] = []
        for unit in self._units:
            if not unit.is_done:
                break
            done.append(unit)
        return done

    def settled(self, num_units: int) -> None:
        """Remove the oldest units, whose answers have been published."""
        for _ in range(num_units):
            self._units.popleft()

    def is_waiting_for(self, partitions: Collection[Partition]) -> bool:
        """Tell whether one of these partitions has a unit that is not computed yet.

        A unit settles only after those before it, so these count too.
        """
        units = list(self._units)
        while units and not units[-1].touches(partitions):
            units.pop()
        return any(not unit.is_done for unit in units)

    def forget(self, partitions: Collection[Partition]) -> None:
        """Drop the work of partitions that were taken away.

        The other records of a mixed unit are computed again, in the place of that unit.
        """
        kept: deque[Unit] = deque()
        for unit in self._units:
            if not unit.touches(partitions):
                kept.append(unit)
                continue
            unit.answer.cancel()
            rest = [record for record in unit.records if record.source not in partitions]
            if rest:
                kept.append(self._make(rest))
        self._units = kept

    def _make(self, records: Sequence[Record]) -> Unit:
        claims = latest_claims(self._claim(record) for record in records)
        return Unit(records, claims, self._compute.submit(records))

    def _claim(self, record: Record) -> Claim:
        epoch = self._epoch(record.source)
        if epoch is None:
            raise StaleAssignment(
                f"the window held {record.source}/{record.offset} of a partition that was taken "
                "away; it must drop such records in forget()"
            )
        return Claim(record.source, epoch, record.offset + 1)
