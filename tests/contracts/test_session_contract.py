"""What every session promises, seen from its own thread."""

from collections.abc import Collection, Iterator

import pytest

from messages.errors import Reason
from tests.contracts.backends import Backend, Crash, aborting
from tests.contracts.members import eventually
from transport.dead_letters import dead_letter
from transport.deadline import Deadline
from transport.errors import SessionFenced, StaleAssignment, TransactionAborted
from transport.port import SessionPort
from transport.records import Claim, OutgoingRecord, Partition, Record


class Listener:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.drained: set[Partition] = set()
        self.forgotten: set[Partition] = set()

    def drain(self, partitions: Collection[Partition], /) -> None:
        """Note partitions about to leave."""
        self.drained.update(partitions)

    def forget(self, partitions: Collection[Partition], /) -> None:
        """Note partitions that left."""
        self.forgotten.update(partitions)


class Members:
    """Opens sessions and closes them when the test ends."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.open_sessions: list[SessionPort] = []

    def open(self, slot: str, before_commit: object = None) -> SessionPort:
        """Open a member of the group."""
        hook = before_commit if callable(before_commit) else lambda: None
        session = self.backend.session("group", ["in"], slot, hook)
        session.open(Listener())
        self.open_sessions.append(session)
        return session


@pytest.fixture
def members(backend: Backend) -> Iterator[Members]:
    """Sessions of one group on the test's log."""
    members = Members(backend)
    yield members
    for session in members.open_sessions:
        session.close(Deadline(5.0))


def _read(session: SessionPort, num_records: int, *others: SessionPort) -> list[Record]:
    """Poll until so many records came, keeping other members alive meanwhile."""
    records: list[Record] = []

    def has_all() -> bool:
        records.extend(session.poll(100, 0.05))
        for other in others:
            assert other.poll(100, 0.0) == []
        return len(records) >= num_records

    eventually(has_all, f"{num_records} records")
    return records


def _claims(session: SessionPort, records: list[Record]) -> list[Claim]:
    claims = {}
    for record in records:
        epoch = session.epoch(record.source)
        assert epoch is not None
        claims[record.source] = Claim(record.source, epoch, record.offset + 1)
    return list(claims.values())


def _publish(backend: Backend, session: SessionPort, records: list[Record]) -> None:
    outgoing = [OutgoingRecord(backend.name("out"), record.value) for record in records]
    session.publish(outgoing, _claims(session, records))


def _values(records: list[Record]) -> list[bytes | None]:
    return sorted((record.value for record in records), key=str)


def test_delivers_each_partition_in_order(backend: Backend, members: Members) -> None:
    """A new group begins at the first record and reads every partition in order, once."""
    for partition in range(3):
        backend.append("in", [b"%d-%03d" % (partition, i) for i in range(50)], partition)

    records = _read(members.open("a"), 150)

    for partition in range(3):
        found = [record for record in records if record.partition == partition]
        assert [record.offset for record in found] == list(range(50))
        assert [record.value for record in found] == [
            b"%d-%03d" % (partition, i) for i in range(50)
        ]


def test_publish_settles_claims(backend: Backend, members: Members) -> None:
    """What is published is visible, and its offsets are settled."""
    backend.append("in", [b"x", b"y"], 1)
    session = members.open("a")
    records = _read(session, 2)

    _publish(backend, session, records)

    assert _values(backend.visible("out")) == [b"x", b"y"]
    assert backend.committed("group", "in")[Partition("in", 1)] == 2


def test_bytes_pass_through_as_they_are(backend: Backend, members: Members) -> None:
    """Key, null value, and headers: repeated, empty and null ones; dead letters hold them all."""
    headers = (("task", b"a"), ("task", b"\xff"), ("kafka_correlationId", None), ("empty", b""))
    sent = OutgoingRecord(backend.name("in"), None, b"\x00key", headers, 2)
    backend.append_record(sent)
    session = members.open("a")
    [record] = _read(session, 1)
    letter = dead_letter(record, Reason.EMPTY_PAYLOAD, "no value", "decode", 1, backend.name("out"))

    session.publish([letter], _claims(session, [record]))
    [found] = backend.visible("out")

    assert (record.partition, record.offset) == (2, 0)
    assert (record.key, record.value, record.headers) == (b"\x00key", None, headers)
    assert record.num_bytes == sent.num_bytes
    assert record.appended_ms > 0
    assert (found.key, found.value, found.headers) == (b"\x00key", None, letter.headers)
    assert found.headers[:4] == headers


def test_next_member_begins_behind_settled_records(backend: Backend, members: Members) -> None:
    """A member that takes a partition over reads on where the settled records end."""
    backend.append("in", [b"settled", b"unsettled"], 0)
    first = members.open("a")
    records = _read(first, 2)
    _publish(backend, first, records[:1])
    members.open_sessions.remove(first)
    first.close(Deadline(5.0))

    assert _values(_read(members.open("b"), 1)) == [b"unsettled"]


def test_abort_leaves_nothing_visible(backend: Backend, members: Members) -> None:
    """An aborted transaction was written, is not visible, settles nothing, and can be repeated."""
    backend.append("in", [b"x"], 0)
    session = members.open("a", aborting(1))
    records = _read(session, 1)

    with pytest.raises(TransactionAborted):
        _publish(backend, session, records)

    assert _values(backend.everything("out")) == [b"x"]
    assert backend.visible("out") == []
    assert backend.committed("group", "in").get(Partition("in", 0), 0) == 0

    _publish(backend, session, records)

    assert _values(backend.visible("out")) == [b"x"]
    assert backend.committed("group", "in")[Partition("in", 0)] == 1


def test_crash_before_commit_leaves_nothing_visible(backend: Backend, members: Members) -> None:
    """An instance that dies between publishing and committing is undone by its successor."""

    def crash() -> None:
        raise Crash

    backend.append("in", [b"x"], 0)
    first = members.open("a", crash)
    records = _read(first, 1)

    with pytest.raises(Crash):
        _publish(backend, first, records)
    members.open_sessions.remove(first)
    first.close(Deadline(5.0))
    second = members.open("a")
    again = _read(second, 1)
    _publish(backend, second, again)

    assert _values(backend.everything("out")) == [b"x", b"x"]
    assert _values(backend.visible("out")) == [b"x"]


def test_newer_instance_fences_older(backend: Backend, members: Members) -> None:
    """Once a slot is taken over, its older instance publishes nothing any more."""
    backend.append("in", [b"x"], 0)
    older = members.open("a")
    records = _read(older, 1)
    members.open("a")

    with pytest.raises(SessionFenced):
        _publish(backend, older, records)

    assert backend.visible("out") == []


def test_stale_epoch_is_refused(backend: Backend, members: Members) -> None:
    """A claim of another epoch is refused before anything is sent."""
    backend.append("in", [b"x"], 0)
    session = members.open("a")
    [record] = _read(session, 1)
    [claim] = _claims(session, [record])

    with pytest.raises(StaleAssignment):
        session.publish(
            [OutgoingRecord(backend.name("out"), b"x")], [claim._replace(epoch=claim.epoch - 1)]
        )

    assert backend.everything("out") == []


def test_pause_holds_back_and_resume_goes_on(backend: Backend, members: Members) -> None:
    """While paused nothing comes; afterwards everything does, without a gap and only once."""
    backend.append("in", [b"%02d" % i for i in range(20)], 0)
    session = members.open("a")
    before = _read(session, 1)
    session.pause()
    backend.append("in", [b"%02d" % i for i in range(20, 40)], 0)

    while_paused = [record for _ in range(10) for record in session.poll(100, 0.05)]
    session.resume()
    after = _read(session, 40 - len(before))

    assert while_paused == []
    assert [record.offset for record in before + after] == list(range(40))


def test_two_members_share_the_partitions(backend: Backend, members: Members) -> None:
    """A second member gets partitions; their first owner is told, and reads them no more."""
    source = [Partition(backend.name("in"), index) for index in range(3)]
    first = members.open("a")
    eventually(
        lambda: first.poll(10, 0.05) == [] and all(first.epoch(p) for p in source),
        "one member owns all",
    )
    second = members.open("b")

    def is_shared() -> bool:
        first.poll(10, 0.05)
        second.poll(10, 0.05)
        owners = [(first.epoch(p) is not None, second.epoch(p) is not None) for p in source]
        return all(sum(pair) == 1 for pair in owners) and {(True, False), (False, True)} <= set(
            owners
        )

    eventually(is_shared, "every partition has one owner and both own some")
    for index in range(3):
        backend.append("in", [b"%d" % index], index)
    theirs: list[Record] = []
    ours: list[Record] = []

    def has_all() -> bool:
        ours.extend(first.poll(10, 0.05))
        theirs.extend(second.poll(10, 0.05))
        return len(ours) + len(theirs) >= 3

    eventually(has_all, "three records")

    assert _values(ours + theirs) == [b"0", b"1", b"2"]
    assert all(first.epoch(record.source) is not None for record in ours)
    assert all(second.epoch(record.source) is not None for record in theirs)


def test_returned_partition_is_a_new_epoch(backend: Backend, members: Members) -> None:
    """Work of before a partition left is stale even when the partition came back."""
    source = [Partition(backend.name("in"), index) for index in range(3)]
    backend.append("in", [b"%d" % i for i in range(3)], 0)
    for index in range(3):
        backend.append("in", [b"x"], index)
    first = members.open("a")
    records = _read(first, 6)
    old_claims = _claims(first, records)
    second = members.open("b")

    def second_owns_some() -> bool:
        first.poll(10, 0.05)
        second.poll(10, 0.05)
        return any(second.epoch(p) for p in source)

    eventually(second_owns_some, "the second member owns a partition")
    members.open_sessions.remove(second)
    second.close(Deadline(5.0))

    def first_owns_all() -> bool:
        first.poll(10, 0.05)
        return all(first.epoch(p) for p in source)

    eventually(first_owns_all, "the first member owns all again")

    with pytest.raises(StaleAssignment):
        first.publish([OutgoingRecord(backend.name("out"), b"stale")], old_claims)
    assert backend.everything("out") == []
