"""The whole of a topic, from its first record to its end: the ground truth of a run."""

from typing import Literal

from confluent_kafka import Consumer, KafkaError, TopicPartition

from producers.positions import ends
from transport.admin import admin_client
from transport.deadline import Deadline
from transport.message_record import record_of
from transport.records import Record
from transport.settings import KafkaSettings

Isolation = Literal["read_committed", "read_uncommitted"]


class OpenTransaction(Exception):
    """A reader cannot see the end of a partition: a transaction there was left open."""


def dump_topic(
    kafka: KafkaSettings,
    topic: str,
    *,
    isolation: Isolation = "read_committed",
    timeout_s: float = 60.0,
) -> list[Record]:
    """Return every visible record of `topic`.

    Raises:
        OpenTransaction: If the visible end is not the end.
        TimeoutError: If the end was not reached in time.
    """
    end_of = ends(admin_client(kafka), topic, 15.0)
    consumer = Consumer(
        kafka.reader(reports_ends=True, start="earliest") | {"isolation.level": isolation}
    )
    consumer.assign([TopicPartition(topic, partition, 0) for partition in end_of])
    records: list[Record] = []
    unfinished = set(end_of)
    deadline = Deadline(timeout_s)
    try:
        while unfinished:
            if deadline.has_passed:
                raise TimeoutError(f"{topic}: partitions {sorted(unfinished)} not read in time")
            for message in consumer.consume(1_000, 0.2):
                error = message.error()
                if error is None:
                    records.append(record_of(message))
                elif error.code() == KafkaError._PARTITION_EOF:
                    partition, offset = message.partition(), message.offset()
                    assert partition is not None
                    assert offset is not None
                    if offset < end_of[partition]:
                        raise OpenTransaction(
                            f"{topic}/{partition}: visible to {offset}, ends at {end_of[partition]}"
                        )
                    unfinished.discard(partition)
    finally:
        consumer.close()
    return sorted(records, key=lambda record: (record.partition, record.offset))
