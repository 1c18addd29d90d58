"""Reads the results topic from given positions, without a consumer group.

Every reader sees every record, so any number of clients share one results topic, and nothing is
committed: where to begin is the reader's own affair.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, Self, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from producers.errors import AnswersLost, ConnectionFailed
from transport.records import Record

logger = logging.getLogger(__name__)

Positions = Mapping[int, int]
"""Next offset to read, by partition."""

_MAX_RECORDS = 1_000
_PARTITIONS_EVERY_S = 30.0
_REFUSALS = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError._AUTHENTICATION,
    }
)


def positions(
    admin: AdminClient, topic: str, *, beginning: bool = False, timeout_s: float = 10.0
) -> dict[int, int]:
    """Return the end (or the beginning) of every partition of `topic`.

    The end is that of everything stored, open transactions included: what is appended from now on
    is never missed, and what is older is not read.

    Raises:
        ConnectionFailed: If no broker answers or there is no such topic.
    """
    try:
        described = admin.list_topics(topic, timeout=timeout_s).topics[topic]
        if described.error is not None:
            raise ConnectionFailed(
                f"topic {topic}: {described.error.str()}: run petstream topics create"
            )
        spec = OffsetSpec.earliest() if beginning else OffsetSpec.latest()  # type: ignore[no-untyped-call]
        listed = admin.list_offsets(
            {TopicPartition(topic, partition): spec for partition in described.partitions},
            request_timeout=timeout_s,
        )
        return {tp.partition: future.result().offset for tp, future in listed.items()}
    except KafkaException as error:
        raise ConnectionFailed(f"topic {topic}: {error.args[0].str()}") from error


class AnswerLog:
    """Sole owner of one consumer of the results topic; to be used from one thread."""

    def __init__(self, config: Mapping[str, Any], topic: str, start: Positions) -> None:
        self._topic = topic
        self._positions = dict(start)
        self._consumer = Consumer(dict(config), logger=logger)
        self._consumer.assign([TopicPartition(topic, p, offset) for p, offset in start.items()])
        self._partitions_due_s = time.monotonic() + _PARTITIONS_EVERY_S

    @property
    def positions(self) -> dict[int, int]:
        """Next offset to read, by partition."""
        return dict(self._positions)

    def read(self, timeout_s: float) -> list[Record]:
        """Return the records at hand, waiting for the first of them at most `timeout_s`.

        Raises:
            AnswersLost: If the next records were deleted before they were read.
            ConnectionFailed: If the broker refuses for good.
        """
        self._follow_new_partitions()
        first = self._consumer.poll(timeout_s)
        if first is None:
            return []
        messages = [first, *self._consumer.consume(_MAX_RECORDS, 0)]
        records = []
        for message in messages:
            error = message.error()
            if error is not None:
                self._explain(error, message.partition())
                continue
            record = _record(message)
            self._positions[record.partition] = record.offset + 1
            records.append(record)
        return records

    def _explain(self, error: KafkaError, partition: int | None) -> None:
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            raise AnswersLost(
                f"{self._topic}/{partition}: the answers before the present beginning of the "
                "partition were deleted before they were read"
            )
        if error.fatal() or error.code() in _REFUSALS:
            raise ConnectionFailed(f"{self._topic}: {error.str()}")
        # Everything else librdkafka retries by itself: a broker that restarts, for example.
        logger.info("%s: %s", self._topic, error.str())

    def _follow_new_partitions(self) -> None:
        now_s = time.monotonic()
        if now_s < self._partitions_due_s:
            return
        self._partitions_due_s = now_s + _PARTITIONS_EVERY_S
        try:
            described = self._consumer.list_topics(self._topic, timeout=5.0).topics[self._topic]
        except KafkaException as error:
            logger.info("%s: partitions not looked up: %s", self._topic, error)
            return
        new = [p for p in described.partitions if p not in self._positions]
        if new:
            # Nothing in a partition that did not exist at the start is older than the start.
            self._positions.update(dict.fromkeys(new, 0))
            self._consumer.incremental_assign([TopicPartition(self._topic, p, 0) for p in new])

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _record(message: Message) -> Record:
    """Return what the consumer handed out."""
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    if topic is None or partition is None or offset is None:
        raise AssertionError("a message without error has coordinates")
    headers = cast("Sequence[tuple[str, bytes | None]]", message.headers() or ())
    _, appended_ms = message.timestamp()
    return Record(
        topic=topic,
        partition=partition,
        offset=offset,
        key=message.key(),
        value=message.value(),
        headers=tuple((name, content or b"") for name, content in headers),
        appended_ms=appended_ms,
    )
