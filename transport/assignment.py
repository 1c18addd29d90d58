"""The epoch guard: which partitions a session owns, since when, and how far it has read.

The broker checks the member and its generation when offsets are committed, not whether the member
owns the partitions (`kafka-reliability` fact 2 in short: a late worker that rejoined could commit
for a partition that meanwhile belongs to another). So every assignment of a partition opens a new
epoch, work carries the epoch it was taken in, and only work of the present epoch is published.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable

from transport.errors import StaleAssignment
from transport.records import Claim, Partition, Record


class Assignment:
    """Owned partitions with their epochs. Used from the session's thread only."""

    def __init__(self) -> None:
        self._epochs: defaultdict[Partition, int] = defaultdict(int)
        self._owned: set[Partition] = set()
        self._next_offsets: dict[Partition, int] = {}

    @property
    def owned(self) -> frozenset[Partition]:
        """The partitions owned now."""
        return frozenset(self._owned)

    def assign(self, partitions: Iterable[Partition]) -> None:
        """Take ownership; each partition enters a new epoch."""
        for partition in partitions:
            self._owned.add(partition)
            self._epochs[partition] += 1
            self._next_offsets.pop(partition, None)

    def revoke(self, partitions: Collection[Partition]) -> None:
        """Give up ownership; work of these partitions is stale from here on."""
        self._owned.difference_update(partitions)

    def epoch(self, partition: Partition) -> int | None:
        """Return the present epoch of an owned partition, None for any other."""
        return self._epochs[partition] if partition in self._owned else None

    def next_offset(self, partition: Partition) -> int | None:
        """Return the offset after the last record accepted in this epoch, None before the first."""
        return self._next_offsets.get(partition)

    def accept(self, record: Record) -> bool:
        """Note a record as read, unless it is not ours or was read before in this epoch.

        A seek after a pause and a fetch on its way can both deliver the same record.
        """
        source = record.source
        if source not in self._owned or record.offset < self._next_offsets.get(source, 0):
            return False
        self._next_offsets[source] = record.offset + 1
        return True

    def check(self, claims: Iterable[Claim]) -> None:
        """Verify that every claim is of the present epoch.

        Raises:
            StaleAssignment: If one is not.
        """
        for claim in claims:
            if self.epoch(claim.source) != claim.epoch:
                raise StaleAssignment(
                    f"{claim.source} was claimed in epoch {claim.epoch}, "
                    f"now {self.epoch(claim.source) or 'not owned'}; drop the work, its new owner "
                    "does it again"
                )
