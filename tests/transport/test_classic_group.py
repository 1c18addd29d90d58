"""The classic group protocol, for brokers older than 4.0, on a real broker."""

from collections.abc import Iterator

import pytest

from tests.contracts.backends import KafkaBackend
from tests.contracts.members import Deaf, eventually
from transport.deadline import Deadline
from transport.port import SessionPort
from transport.records import Claim, OutgoingRecord, Partition, Record
from transport.settings import KafkaSettings

pytestmark = pytest.mark.kafka


class Group:
    """Members of one classic group on a topic of two partitions."""

    def __init__(self, backend: KafkaBackend) -> None:
        self.backend = backend
        self.sources = [Partition(backend.name("in"), index) for index in range(2)]
        self.sessions: list[SessionPort] = []

    def join(self, slot: str) -> SessionPort:
        """Open a member."""
        session = self.backend.session("group", ["in"], slot, lambda: None)
        session.open(Deaf())
        self.sessions.append(session)
        return session

    def poll(self) -> list[tuple[SessionPort, Record]]:
        """Poll all members."""
        return [(member, r) for member in self.sessions for r in member.poll(10, 0.05)]

    def echo(self, member: SessionPort, record: Record) -> None:
        """Answer a record and settle it."""
        epoch = member.epoch(record.source)
        assert epoch is not None
        claim = Claim(record.source, epoch, record.offset + 1)
        member.publish([OutgoingRecord(self.backend.name("out"), record.value)], [claim])

    def echo_all(self, num_records: int) -> None:
        """Answer so many records, whoever gets them."""
        num_left = [num_records]

        def is_done() -> bool:
            for member, record in self.poll():
                self.echo(member, record)
                num_left[0] -= 1
            return num_left[0] <= 0

        eventually(is_done, f"{num_records} records")


@pytest.fixture
def group(broker: str, namespace: str) -> Iterator[Group]:
    """A group without members."""
    backend = KafkaBackend(broker, namespace)
    backend.settings = KafkaSettings(bootstrap_servers=broker, group_protocol="classic")
    backend.create_topic("in", 2)
    backend.create_topic("out", 1)
    group = Group(backend)
    yield group
    for session in group.sessions:
        session.close(Deadline(5.0))


def test_members_share_and_go_on_behind_what_is_settled(group: Group) -> None:
    """A partition that changes its owner is read on where its records were settled."""
    for partition in range(2):
        group.backend.append("in", [b"before"], partition)
    group.join("a")
    group.echo_all(2)
    group.join("b")

    def is_shared() -> bool:
        assert group.poll() == []
        return all(any(member.epoch(s) for s in group.sources) for member in group.sessions)

    eventually(is_shared, "each member owns a partition")
    for partition in range(2):
        group.backend.append("in", [b"after"], partition)
    group.echo_all(2)

    values = sorted(record.value or b"" for record in group.backend.visible("out"))
    assert values == [b"after", b"after", b"before", b"before"]
    assert set(group.backend.committed("group", "in").values()) == {2}
