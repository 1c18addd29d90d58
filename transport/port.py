"""What the pipeline needs of a session. Two fulfil it: Kafka's and the in-memory one."""

from collections.abc import Collection, Sequence
from typing import Protocol

from transport.deadline import Deadline
from transport.records import Claim, OutgoingRecord, Partition, Record


class AssignmentListener(Protocol):
    """Told of partitions that leave, from inside `SessionPort.poll`."""

    def drain(self, partitions: Collection[Partition], /) -> None:
        """Publish the finished work of these partitions; they are still owned."""
        ...

    def forget(self, partitions: Collection[Partition], /) -> None:
        """Drop all work of these partitions; they are no longer owned."""
        ...


class SessionPort(Protocol):
    """One member of a consumer group that publishes what it makes of the records it reads.

    Used from one thread. Rebalances happen only inside `poll`.
    """

    def open(self, listener: AssignmentListener, /) -> None:
        """Fence earlier instances of this one, then join the group."""
        ...

    def poll(self, max_records: int, timeout_s: float, /) -> list[Record]:
        """Return new records, in order within each partition; wait for the first if need be."""
        ...

    def pause(self) -> None:
        """Deliver no records until `resume`, while `poll` keeps the membership alive."""
        ...

    def resume(self) -> None:
        """Deliver records again, from the first one not yet delivered."""
        ...

    def epoch(self, partition: Partition, /) -> int | None:
        """Return the present assignment epoch of an owned partition, None for any other."""
        ...

    def publish(self, outgoing: Sequence[OutgoingRecord], claims: Sequence[Claim], /) -> None:
        """Publish the records and settle the claims, all or nothing.

        Raises:
            StaleAssignment: If a claim is of an earlier epoch; nothing was sent.
            TransactionAborted: If nothing became visible; it may be tried again.
        """
        ...

    def close(self, deadline: Deadline, /) -> None:
        """Leave the group and free everything. The listener hears nothing any more."""
        ...
