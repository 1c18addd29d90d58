"""Doubtful commits against a real broker: nothing is guessed, nothing is answered twice."""

import secrets
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import Producer

from tests.contracts.backends import KafkaBackend
from tests.contracts.members import Deaf, eventually
from tests.transport.scripted_producer import Fate, ScriptedProducers
from transport.deadline import Deadline
from transport.errors import RecordTooLarge, TransactionAborted
from transport.publisher import MAX_RECORD_BYTES
from transport.records import Claim, OutgoingRecord, Partition
from transport.session import Session
from transport.transactions import TransactionalPublisher

pytestmark = pytest.mark.kafka


class Member:
    """A session that read one record, and its publisher."""

    def __init__(self, backend: KafkaBackend, fates: list[Fate]) -> None:
        self.backend = backend
        self.publisher = TransactionalPublisher(
            backend.settings, backend.name("group.a"), ScriptedProducers(fates)
        )
        self.session = Session(
            backend.settings,
            group=backend.name("group"),
            topics=[backend.name("in")],
            slot="a",
            publisher=self.publisher,
        )
        self.session.open(Deaf())
        self.source = Partition(backend.name("in"), 0)
        eventually(lambda: len(self.session.poll(1, 0.1)) == 1, "the record")

    def publish(self, value: bytes = b"answer") -> None:
        """Answer the record."""
        epoch = self.session.epoch(self.source)
        assert epoch is not None
        self.session.publish(
            [OutgoingRecord(self.backend.name("out"), value)], [Claim(self.source, epoch, 1)]
        )

    def settled(self) -> int:
        """Return the group's committed offset."""
        return self.backend.committed("group", "in").get(Partition("in", 0), 0)


@pytest.fixture
def backend(broker: str, namespace: str) -> KafkaBackend:
    """A real broker with one record in `in`."""
    backend = KafkaBackend(broker, namespace)
    backend.create_topic("in", 1)
    backend.create_topic("out", 1)
    backend.append("in", [b"question"], 0)
    return backend


@pytest.fixture
def member(backend: KafkaBackend) -> Iterator[Callable[[list[Fate]], Member]]:
    """Make members, closed at the end."""
    members: list[Member] = []

    def make(fates: list[Fate]) -> Member:
        members.append(Member(backend, fates))
        return members[-1]

    yield make
    for made in members:
        made.session.close(Deadline(5.0))


MakeMember = Callable[[list[Fate]], Member]


def _answers(backend: KafkaBackend) -> Counter[bytes | None]:
    return Counter(record.value for record in backend.visible("out"))


def test_timed_out_commit_is_asked_again(backend: KafkaBackend, member: MakeMember) -> None:
    """A commit that timed out is called again, never aborted, and its producer is replaced."""
    one = member(["timed out", "timed out"])

    one.publish()

    assert _answers(backend) == {b"answer": 1}
    assert one.settled() == 1
    assert one.publisher.num_producers == 2


def test_committed_but_unanswered_is_recognised(backend: KafkaBackend, member: MakeMember) -> None:
    """When only the answer was lost, the coordinator is asked and nothing is published again."""
    one = member(["answer lost"])

    one.publish()

    assert Counter(record.value for record in backend.everything("out")) == {b"answer": 1}
    assert one.settled() == 1
    assert one.publisher.num_producers == 2


def test_commit_that_never_happened_is_an_abort(backend: KafkaBackend, member: MakeMember) -> None:
    """When the commit did not happen, the caller may publish again, and readers see one answer."""
    one = member(["refused for good"])

    with pytest.raises(TransactionAborted):
        one.publish()
    assert _answers(backend) == {}
    assert one.settled() == 0
    one.publish()

    assert _answers(backend) == {b"answer": 1}
    assert len(backend.everything("out")) == 2
    assert one.settled() == 1
    assert one.publisher.num_producers == 2


def test_timed_out_commit_is_not_aborted(backend: KafkaBackend, member: MakeMember) -> None:
    """Not even if the client says next that it must be: fenced, asked for, published again."""
    one = member(["timed out", "abort"])

    with pytest.raises(TransactionAborted):
        one.publish()
    one.publish()

    assert _answers(backend) == {b"answer": 1}
    assert one.settled() == 1
    assert one.publisher.num_producers == 2


def test_abort_keeps_the_producer(backend: KafkaBackend, member: MakeMember) -> None:
    """An ordinary abort is over when it is answered: no new producer is needed."""
    one = member(["abort"])

    with pytest.raises(TransactionAborted):
        one.publish()
    one.publish()

    assert _answers(backend) == {b"answer": 1}
    assert one.publisher.num_producers == 1


def test_oversize_record_is_refused_before_anything_is_sent(
    backend: KafkaBackend, member: MakeMember
) -> None:
    """A record that no topic accepts is named, and the session goes on."""
    one = member([])

    with pytest.raises(RecordTooLarge, match=f"exceeds {MAX_RECORD_BYTES} bytes"):
        one.publish(bytes(MAX_RECORD_BYTES + 1))
    one.publish()

    assert [record.value for record in backend.everything("out")] == [b"answer"]


def test_record_too_large_for_its_topic(backend: KafkaBackend, member: MakeMember) -> None:
    """A record that the broker refuses ends the session, naming the topic: no retry helps."""
    one = member([])

    # Random bytes, because the limit is on what compression leaves.
    with pytest.raises(RecordTooLarge, match=r"3000000 bytes for .*max.message.bytes"):
        one.publish(secrets.token_bytes(3_000_000))

    assert _answers(backend) == {}
    assert one.settled() == 0


def test_make_producer_default_is_transactional(broker: str, namespace: str) -> None:
    """Without a test's hook the publisher makes a real producer of the slot."""
    backend = KafkaBackend(broker, namespace)
    publisher = TransactionalPublisher(backend.settings, f"{namespace}.slot")

    publisher.open()

    assert publisher.num_producers == 1
    assert isinstance(publisher._producer, Producer)
    publisher.close(Deadline(5.0))
