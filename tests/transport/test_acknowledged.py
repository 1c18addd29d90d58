"""At-least-once publishing on a real broker."""

import secrets
from collections.abc import Iterator

import pytest

from tests.contracts.backends import KafkaBackend
from tests.contracts.members import Deaf, eventually
from transport.deadline import Deadline
from transport.errors import RecordTooLarge, StaleAssignment
from transport.records import Claim, OutgoingRecord, Partition
from transport.session import Session
from transport.settings import KafkaSettings

pytestmark = pytest.mark.kafka


class Member:
    """A session without transactions that read one record."""

    def __init__(self, backend: KafkaBackend) -> None:
        self.backend = backend
        settings = KafkaSettings(
            bootstrap_servers=backend.settings.bootstrap_servers, delivery="at_least_once"
        )
        self.source = Partition(backend.name("in"), 0)
        self.session = Session(
            settings, group=backend.name("group"), topics=[self.source.topic], slot="a"
        )
        self.session.open(Deaf())
        eventually(lambda: len(self.session.poll(1, 0.1)) == 1, "the record")

    def publish(self, topic: str, value: bytes, *, epochs_ago: int = 0) -> None:
        """Answer the record."""
        epoch = (self.session.epoch(self.source) or 0) - epochs_ago
        outgoing = [OutgoingRecord(self.backend.name(topic), value)]
        self.session.publish(outgoing, [Claim(self.source, epoch, 1)])

    def settled(self) -> int:
        """Return the group's committed offset."""
        return self.backend.committed("group", "in").get(Partition("in", 0), 0)


@pytest.fixture
def member(broker: str, namespace: str) -> Iterator[Member]:
    """A member on a real broker."""
    backend = KafkaBackend(broker, namespace)
    backend.create_topic("in", 1)
    backend.create_topic("out", 1)
    backend.append("in", [b"question"], 0)
    member = Member(backend)
    yield member
    member.session.close(Deadline(5.0))


def test_offsets_follow_the_acknowledged_answers(member: Member) -> None:
    """Published, acknowledged, then settled."""
    member.publish("out", b"answer")

    assert [record.value for record in member.backend.visible("out")] == [b"answer"]
    assert member.settled() == 1


def test_unacknowledged_answers_settle_nothing(member: Member) -> None:
    """A record that the broker refuses keeps the offset where it is."""
    with pytest.raises(RecordTooLarge, match=r"max\.message\.bytes"):
        member.publish("out", secrets.token_bytes(3_000_000))

    assert member.backend.visible("out") == []
    assert member.settled() == 0


def test_epoch_guard_holds_without_transactions(member: Member) -> None:
    """Stale work is refused here too: it would be answered a second time for sure."""
    with pytest.raises(StaleAssignment):
        member.publish("out", b"late", epochs_ago=1)

    assert member.backend.everything("out") == []
    assert member.settled() == 0
