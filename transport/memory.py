"""An in-memory log with groups and transactions, for unit tests without a broker.

It keeps the promises that the pipeline relies on (read_committed readers see whole transactions,
a newer instance fences an older one of the same transactional id, commits of members that left
the group are refused) and, like the real broker, does *not* check that a member owns the
partitions it commits for: that is the epoch guard's duty. The contract suite runs on both.
"""

import threading
import time
import zlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from transport.assignment import Assignment
from transport.deadline import Deadline
from transport.errors import SessionFenced, TransactionAborted
from transport.port import AssignmentListener
from transport.records import Claim, Headers, OutgoingRecord, Partition, Record


@dataclass(eq=False, slots=True)
class _Transaction:
    """`is_open` until decided; then its entries are visible or never will be."""

    is_open: bool = True
    is_committed: bool = False


@dataclass(frozen=True, slots=True)
class _Entry:
    record: Record
    transaction: _Transaction | None

    @property
    def is_visible(self) -> bool:
        return self.transaction is None or self.transaction.is_committed


@dataclass(slots=True)
class _Group:
    topics: tuple[str, ...] = ()
    members: list["MemorySession"] = field(default_factory=list)
    targets: dict[Partition, "MemorySession"] = field(default_factory=dict)
    owners: dict[Partition, "MemorySession"] = field(default_factory=dict)
    committed: dict[Partition, int] = field(default_factory=dict)


class MemoryLog:
    """Topics, groups and transactions of one pretended cluster. Safe to share between threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.RLock())
        self._entries: dict[Partition, list[_Entry]] = {}
        self._groups: dict[str, _Group] = {}
        self._instances: dict[str, MemorySession] = {}

    def create_topic(self, topic: str, num_partitions: int = 1) -> None:
        """Make an empty topic."""
        with self._changed:
            for index in range(num_partitions):
                self._entries.setdefault(Partition(topic, index), [])

    def append(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = None,
        headers: Headers = (),
        partition: int | None = None,
    ) -> Partition:
        """Publish a record as a plain producer does; return where it went."""
        with self._changed:
            return self._append(OutgoingRecord(topic, value, key, headers, partition), None)

    def read(self, topic: str, *, committed_only: bool = True) -> list[Record]:
        """Return the records of a topic as a read_committed reader sees them, or all."""
        with self._changed:
            return [
                entry.record
                for partition in self._partitions((topic,))
                for entry in self._entries[partition]
                if entry.is_visible or not committed_only
            ]

    def committed_offsets(self, group: str) -> dict[Partition, int]:
        """Return the next offsets that the group has settled."""
        with self._changed:
            return dict(self._groups.get(group, _Group()).committed)

    def owners(self, group: str) -> dict[Partition, "MemorySession"]:
        """Return who owns which partition now."""
        with self._changed:
            return dict(self._groups.get(group, _Group()).owners)

    def session(
        self,
        group: str,
        topics: Sequence[str],
        transactional_id: str,
        before_commit: Callable[[], None] = lambda: None,
    ) -> "MemorySession":
        """Return a new member of a group, not yet opened.

        Args:
            group: Consumer group.
            topics: Topics to subscribe to.
            transactional_id: Of the instance's slot; stable over restarts.
            before_commit: Called when a transaction holds its records and offsets and is about to
                be committed. Raising `TransactionAborted` aborts it, anything else is a crash.
        """
        return MemorySession(self, group, tuple(topics), transactional_id, before_commit)

    def expel(self, session: "MemorySession", group: str) -> None:
        """Take a member out of its group, as the broker does when heartbeats stay away."""
        with self._changed:
            self._leave(session, group)

    def _partitions(self, topics: Collection[str]) -> list[Partition]:
        return sorted(p for p in self._entries if p.topic in topics)

    def _append(self, outgoing: OutgoingRecord, transaction: _Transaction | None) -> Partition:
        partition = self._place(outgoing)
        entries = self._entries[partition]
        record = Record(
            topic=outgoing.topic,
            partition=partition.partition,
            offset=len(entries),
            key=outgoing.key,
            value=outgoing.value,
            headers=outgoing.headers,
            appended_ms=time.time_ns() // 1_000_000,
        )
        entries.append(_Entry(record, transaction))
        self._changed.notify_all()
        return partition

    def _place(self, outgoing: OutgoingRecord) -> Partition:
        if outgoing.partition is not None:
            return Partition(outgoing.topic, outgoing.partition)
        partitions = self._partitions((outgoing.topic,))
        seed = zlib.crc32(outgoing.key) if outgoing.key else sum(map(len, self._entries.values()))
        return partitions[seed % len(partitions)]

    def _join(self, session: "MemorySession", group_id: str, topics: tuple[str, ...]) -> None:
        group = self._groups.setdefault(group_id, _Group(topics))
        group.members.append(session)
        self._rebalance(group)

    def _leave(self, session: "MemorySession", group_id: str) -> None:
        group = self._groups[group_id]
        if session in group.members:
            group.members.remove(session)
            group.owners = {p: owner for p, owner in group.owners.items() if owner is not session}
            self._rebalance(group)

    def _rebalance(self, group: _Group) -> None:
        partitions = self._partitions(group.topics) if group.members else []
        num_members = len(group.members)
        group.targets = {p: group.members[i % num_members] for i, p in enumerate(partitions)}
        self._changed.notify_all()

    def _readable(self, partition: Partition, offset: int, max_records: int) -> list[Record]:
        """Return visible records from `offset` on, up to the first open transaction."""
        records: list[Record] = []
        for entry in self._entries[partition][offset:]:
            if len(records) >= max_records or (entry.transaction and entry.transaction.is_open):
                break
            if entry.is_visible:
                records.append(entry.record)
        return records


class MemorySession:
    """A member of a group of a `MemoryLog`; fulfils `transport.port.SessionPort`."""

    def __init__(
        self,
        log: MemoryLog,
        group: str,
        topics: tuple[str, ...],
        transactional_id: str,
        before_commit: Callable[[], None],
    ) -> None:
        self._log = log
        self._group_id = group
        self._topics = topics
        self._transactional_id = transactional_id
        self._before_commit = before_commit
        self._assignment = Assignment()
        self._listener: AssignmentListener | None = None
        self._transaction: _Transaction | None = None
        self._is_paused = False

    def open(self, listener: AssignmentListener, /) -> None:
        """Fence the earlier instance, aborting its open transaction, then join the group."""
        log = self._log
        with log._changed:
            earlier = log._instances.get(self._transactional_id)
            if earlier is not None and earlier._transaction is not None:
                earlier._transaction.is_open = False
            log._instances[self._transactional_id] = self
            self._listener = listener
            log._join(self, self._group_id, self._topics)

    def poll(self, max_records: int, timeout_s: float, /) -> list[Record]:
        """Serve rebalances, then return new records, waiting for the first if need be."""
        deadline = Deadline(timeout_s)
        while True:
            self._rejoin_if_lost()
            self._release_leaving()
            with self._log._changed:
                self._take_arriving()
                records = [] if self._is_paused else self._fetch(max_records)
                if records or deadline.has_passed:
                    return records
                self._log._changed.wait(deadline.left_s)

    def pause(self) -> None:
        """Deliver nothing until `resume`."""
        self._is_paused = True

    def resume(self) -> None:
        """Deliver records again."""
        self._is_paused = False

    def epoch(self, partition: Partition, /) -> int | None:
        """Return the present epoch of an owned partition, None for any other."""
        return self._assignment.epoch(partition)

    def publish(self, outgoing: Sequence[OutgoingRecord], claims: Sequence[Claim], /) -> None:
        """Publish and settle in one transaction."""
        self._assignment.check(claims)
        log = self._log
        with log._changed:
            if log._instances[self._transactional_id] is not self:
                raise SessionFenced(f"{self._transactional_id} was taken over; stop this process")
            transaction = self._transaction = _Transaction()
            for record in outgoing:
                log._append(record, transaction)
        try:
            self._before_commit()
        except TransactionAborted:
            with log._changed:
                transaction.is_open = False
            raise
        with log._changed:
            self._decide(transaction, claims)

    def close(self, _deadline: Deadline, /) -> None:
        """Leave the group; an open transaction is aborted."""
        with self._log._changed:
            self._listener = None
            if self._transaction is not None:
                self._transaction.is_open = False
            if self._group_id in self._log._groups:
                self._log._leave(self, self._group_id)
            self._log._changed.notify_all()

    def _decide(self, transaction: _Transaction, claims: Sequence[Claim]) -> None:
        group = self._log._groups[self._group_id]
        was_aborted = not transaction.is_open
        transaction.is_open = False
        self._log._changed.notify_all()
        if was_aborted:
            raise SessionFenced(f"{self._transactional_id} was taken over; stop this process")
        if self not in group.members:
            raise TransactionAborted("the group does not know this member any more")
        transaction.is_committed = True
        group.committed.update({claim.source: claim.next_offset for claim in claims})

    def _rejoin_if_lost(self) -> None:
        log = self._log
        with log._changed:
            if self._listener is None or self in log._groups[self._group_id].members:
                return
            lost = self._assignment.owned
        self._assignment.revoke(lost)
        self._listener.forget(lost)
        with log._changed:
            log._join(self, self._group_id, self._topics)

    def _release_leaving(self) -> None:
        log = self._log
        with log._changed:
            group = log._groups[self._group_id]
            leaving = {p for p in self._assignment.owned if group.targets.get(p) is not self}
        if not leaving or self._listener is None:
            return
        self._listener.drain(leaving)
        self._assignment.revoke(leaving)
        self._listener.forget(leaving)
        with log._changed:
            group.owners = {
                p: o for p, o in group.owners.items() if not (o is self and p in leaving)
            }
            log._changed.notify_all()

    def _take_arriving(self) -> None:
        group = self._log._groups[self._group_id]
        for partition, member in group.targets.items():
            if member is self and partition not in group.owners:
                group.owners[partition] = self
                self._assignment.assign([partition])

    def _fetch(self, max_records: int) -> list[Record]:
        group = self._log._groups[self._group_id]
        records: list[Record] = []
        for partition in sorted(self._assignment.owned):
            offset = self._assignment.next_offset(partition)
            start = group.committed.get(partition, 0) if offset is None else offset
            found = self._log._readable(partition, start, max_records - len(records))
            records.extend(record for record in found if self._assignment.accept(record))
        return records
