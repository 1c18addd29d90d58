"""What a session publishes with, and what both ways of publishing share."""

from collections.abc import Sequence
from typing import Protocol

from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition

from messages.limits import MAX_BATCH_BYTES
from transport.deadline import Deadline
from transport.errors import RecordTooLarge
from transport.records import OutgoingRecord

MAX_RECORD_BYTES = MAX_BATCH_BYTES - 1024
"""Largest key, value and headers together; the rest is framing."""

_BY_KEY = -1
"""librdkafka's `RD_KAFKA_PARTITION_UA`: its partitioner decides."""
_QUEUE_FULL_WAIT_S = 0.05


_TOO_LARGE = {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE}


class Publisher(Protocol):
    """Publishes records and settles offsets together. Used from the session's thread only."""

    def open(self) -> None:
        """Fence earlier instances, where that is possible."""
        ...

    def serve(self) -> None:
        """Serve the client's callbacks; call it now and then."""
        ...

    def publish(
        self,
        outgoing: Sequence[OutgoingRecord],
        offsets: Sequence[TopicPartition],
        consumer: Consumer,
        /,
    ) -> None:
        """Publish the records and commit the offsets for the consumer's group.

        Raises:
            TransactionAborted: If it may be tried again.
            SessionError: If it may not.
        """
        ...

    def close(self, deadline: Deadline, /) -> None:
        """Free the client."""
        ...


class DeliveryReports:
    """Counts what became of the records of one transaction."""

    def __init__(self) -> None:
        self.num_sent = 0
        self.num_acknowledged = 0
        self.num_failed = 0
        self.last_error = ""
        self.too_large: RecordTooLarge | None = None
        """The last record that the broker found too large for its topic."""

    @property
    def num_reported(self) -> int:
        """Records whose fate is known."""
        return self.num_acknowledged + self.num_failed

    @property
    def is_complete(self) -> bool:
        """Whether every record was acknowledged."""
        return self.num_acknowledged == self.num_sent

    def note(self, error: KafkaError | None, message: Message) -> None:
        """Count one report; the callback of `Producer.produce`."""
        if error is None:
            self.num_acknowledged += 1
        else:
            self.num_failed += 1
            self.last_error = error.str()
        if error is not None and error.code() in _TOO_LARGE:
            limit = "the topic's max.message.bytes"
            self.too_large = RecordTooLarge(message.topic() or "", len(message), limit)


def check_sizes(outgoing: Sequence[OutgoingRecord]) -> None:
    """Verify, before anything is sent, that every record can be.

    Raises:
        RecordTooLarge: For the first that cannot.
    """
    for record in outgoing:
        if record.num_bytes > MAX_RECORD_BYTES:
            raise RecordTooLarge(record.topic, record.num_bytes, f"{MAX_RECORD_BYTES} bytes")


def produce_all(
    producer: Producer, outgoing: Sequence[OutgoingRecord], reports: DeliveryReports
) -> None:
    """Hand the records to the producer, waiting where its queue is full.

    Raises:
        confluent_kafka.KafkaException: If the producer cannot take records any more.
    """
    for record in outgoing:
        while True:
            try:
                producer.produce(
                    record.topic,
                    record.value,
                    record.key,
                    _BY_KEY if record.partition is None else record.partition,
                    reports.note,
                    headers=list(record.headers),
                )
            except BufferError:
                producer.poll(_QUEUE_FULL_WAIT_S)
            else:
                reports.num_sent += 1
                break
