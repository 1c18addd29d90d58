"""The session's dealings with its consumer, on scripted clients; the rest is in the contracts."""

from collections.abc import Collection, Iterator, Sequence
from typing import cast

import pytest
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from tests.transport.scripted_consumer import (
    ScriptedAdmin,
    ScriptedConsumer,
    error_message,
    message,
)
from transport.deadline import Deadline
from transport.records import OutgoingRecord, Partition
from transport.session import Session
from transport.settings import KafkaSettings

SOURCE = Partition("in", 0)


class Listener:
    """Notes what it must forget."""

    def __init__(self) -> None:
        self.forgotten: list[Partition] = []

    def drain(self, partitions: Collection[Partition], /) -> None:
        """Nothing is under way."""

    def forget(self, partitions: Collection[Partition], /) -> None:
        """Note partitions that left."""
        self.forgotten += partitions


class _NoPublisher:
    """Publishes nothing."""

    def open(self) -> None:
        """Connect to nobody."""

    def serve(self) -> None:
        """Serve nobody."""

    def publish(
        self,
        outgoing: Sequence[OutgoingRecord],
        offsets: Sequence[TopicPartition],
        consumer: Consumer,
        /,
    ) -> None:
        """Never called."""
        raise NotImplementedError

    def close(self, deadline: Deadline, /) -> None:
        """Free nothing."""


class Scripted:
    """An open session whose consumer delivers the lists of a script, one per poll."""

    def __init__(self, script: list[list[Message]]) -> None:
        self.listener = Listener()
        self.session = Session(
            KafkaSettings(bootstrap_servers="127.0.0.1:1"),
            group="group",
            topics=[SOURCE.topic],
            slot="a",
            publisher=_NoPublisher(),
            make_consumer=lambda _config: cast("Consumer", ScriptedConsumer(script)),
            make_admin=lambda _settings: cast("AdminClient", ScriptedAdmin()),
        )
        self.session.open(self.listener)

    def poll(self) -> list[int]:
        """Poll; return the offsets of the records."""
        return [record.offset for record in self.session.poll(100, 0.0)]


@pytest.fixture
def scripted(request: pytest.FixtureRequest) -> Iterator[Scripted]:
    """The session of the test's script."""
    scripted = Scripted(request.param)
    yield scripted
    scripted.session.close(Deadline(5.0))


TOO_LATE = error_message(KafkaError._MAX_POLL_EXCEEDED)


@pytest.mark.parametrize(
    "scripted",
    [[[message("in", 5), TOO_LATE]], [[TOO_LATE, message("in", 5)]]],
    ids=["the record first", "the error first"],
    indirect=True,
)
def test_record_delivered_along_with_its_partitions_loss_is_dropped(scripted: Scripted) -> None:
    """Polled too rarely, the partition belongs to another member, who answers the record."""
    assert scripted.poll() == []
    assert scripted.session.epoch(SOURCE) is None
    assert scripted.listener.forgotten == [SOURCE]


@pytest.mark.parametrize(
    "scripted",
    [[[message("in", 5), error_message(KafkaError._TRANSPORT), message("in", 6)]]],
    indirect=True,
)
def test_error_that_takes_nothing_away_costs_no_record(scripted: Scripted) -> None:
    """The connection may break and come back between two records."""
    assert scripted.poll() == [5, 6]
    assert scripted.session.epoch(SOURCE) == 1


@pytest.mark.parametrize(
    "scripted", [[[message("in", 5), message("in", 6)], [message("in", 6)]]], indirect=True
)
def test_record_delivered_twice_within_an_epoch_is_taken_once(scripted: Scripted) -> None:
    """A seek and a fetch on its way may both bring it."""
    assert scripted.poll() == [5, 6]
    assert scripted.poll() == []


@pytest.mark.parametrize("scripted", [[]], indirect=True)
def test_topic_ids_are_the_brokers(scripted: Scripted) -> None:
    """A topic that is not read has none."""
    assert scripted.session.topic_id("in") == "id-of-in"
    assert scripted.session.topic_id("other") == ""
