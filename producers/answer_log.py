"""Reads the results topic from given positions, without a consumer group.

Every reader sees every record, so any number of clients share one results topic, and nothing is
committed: where to begin is the reader's own affair.
"""

import logging
import time
from collections.abc import Mapping
from typing import Any, Self

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from producers.errors import AnswersLost, ConnectionFailed
from producers.positions import Positions
from transport.client_log import client_log
from transport.message_record import record_of
from transport.records import Record

logger = logging.getLogger(__name__)

_MAX_RECORDS = 1_000
_REFUSALS = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError._AUTHENTICATION,
    }
)


class AnswerLog:
    """Sole owner of one consumer of the results topic; to be used from one thread."""

    def __init__(
        self,
        config: Mapping[str, Any],
        topic: str,
        start: Positions,
        *,
        partitions_every_s: float = 30.0,
    ) -> None:
        """Begin to read.

        Args:
            config: Settings of a reader without a group.
            topic: The results topic.
            start: Where to begin; partitions that are not in it are read from their beginning.
            partitions_every_s: How often to look for added partitions.
        """
        self._topic = topic
        self._positions = dict(start)
        self._consumer = Consumer(dict(config), logger=client_log)
        self._consumer.assign([TopicPartition(topic, p, offset) for p, offset in start.items()])
        self._partitions_every_s = partitions_every_s
        self._partitions_due_s = time.monotonic() + partitions_every_s

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
            record = record_of(message)
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
        self._partitions_due_s = now_s + self._partitions_every_s
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
