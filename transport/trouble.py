"""Errors that a consumer delivers in place of records: which to ride out, skip or stop for."""

import logging
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from messages.origin import Origin
from transport.errors import AccessDenied, DataLossDetected, SessionError
from transport.records import Partition, Record

logger = logging.getLogger(__name__)

_SIGHTINGS = 3
"""A record is given up when it was unreadable this often: one failure may be the network's."""
_REQUEST_S = 15.0
_UNREADABLE = {
    KafkaError._BAD_COMPRESSION,
    KafkaError._BAD_MSG,
    KafkaError._FS,
    KafkaError._UNDERFLOW,
    KafkaError.INVALID_MSG,
    KafkaError.INVALID_MSG_SIZE,
}
_DENIED = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError._AUTHENTICATION,
    KafkaError.SASL_AUTHENTICATION_FAILED,
}


class _GivenUp(NamedTuple):
    """A compressed batch that cannot be inflated, and how far it has been skipped."""

    batch_offset: int
    next_offset: int


class ConsumerTrouble:
    """Handles the error messages of one consumer, on its thread."""

    def __init__(self, consumer: Consumer, group: str, topic_ids: dict[str, str]) -> None:
        self._consumer = consumer
        self._group = group
        self._topic_ids = topic_ids
        self._sightings: Counter[tuple[Partition, int]] = Counter()
        self._given_up: dict[Partition, _GivenUp] = {}

    def handle(self, message: Message, error: KafkaError) -> Record | None:
        """Deal with one error; return a record that stands for unreadable bytes, if it is one.

        Raises:
            DataLossDetected: If records were deleted before they were read.
            AccessDenied: If the broker refuses us.
            SessionError: If the consumer cannot go on.
        """
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            self._begin_or_stop(Partition(message.topic() or "", message.partition() or 0))
        elif error.code() in _UNREADABLE and message.topic() is not None:
            return self._count_sighting(message, error)
        elif error.code() in _DENIED:
            raise AccessDenied(f"group {self._group}: {error.str()}; ask for the ACLs it needs")
        elif error.fatal():
            raise SessionError(f"the consumer of {self._group} failed: {error.str()}; restart it")
        else:
            logger.warning("consumer of %s: %s", self._group, error.str())
        return None

    def forget(self, sources: Iterable[Partition]) -> None:
        """Start afresh with partitions that left: unsettled skips must be answered again."""
        for source in sources:
            self._given_up.pop(source, None)

    def _begin_or_stop(self, source: Partition) -> None:
        """Begin a partition that the group never read at its first record; stop if it was read.

        Only the partition's owner comes here, so nobody else can be committing for it.
        """
        partition = TopicPartition(*source)
        try:
            [committed] = self._consumer.committed([partition], timeout=_REQUEST_S)
            # A partition that was added just now is not in the client's metadata yet.
            self._consumer.list_topics(source.topic, timeout=_REQUEST_S)
            low, high = self._consumer.get_watermark_offsets(partition, timeout=_REQUEST_S)
            if committed.offset >= 0:
                raise self._data_loss(source, committed.offset, low, high)
            logger.warning("group %s never read %s: it begins at %d", self._group, source, low)
            start = TopicPartition(*source, low)
            self._consumer.commit(offsets=[start], asynchronous=False)
            self._consumer.incremental_unassign([partition])
            self._consumer.incremental_assign([start])
        except KafkaException as exception:
            raise SessionError(
                f"group {self._group} cannot begin {source}: {exception.args[0].str()}; restart it"
            ) from exception

    def _data_loss(self, source: Partition, committed: int, low: int, high: int) -> SessionError:
        lost_from, lost_to = (committed, low - 1) if committed < low else (high, committed - 1)
        topic_id = self._topic_ids.get(source.topic, "")
        origin = Origin(source.topic, topic_id, source.partition, lost_from)
        return DataLossDetected(origin, lost_to)

    def _count_sighting(self, message: Message, error: KafkaError) -> Record | None:
        """Give up a record that stays unreadable, and read on behind it."""
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        if topic is None or partition is None or offset is None or offset < 0:
            logger.error("unreadable data without coordinates: %s", error.str())
            return None
        source = Partition(topic, partition)
        given_up = self._given_up.get(source)
        if given_up is not None and given_up.batch_offset == offset:
            # The error names the first record of the compressed batch that we are still within.
            return self._skip(source, given_up.next_offset, offset, error)
        self._sightings[source, offset] += 1
        count = self._sightings[source, offset]
        logger.error("unreadable %s/%d, seen %d times: %s", source, offset, count, error.str())
        if count < _SIGHTINGS:
            return None
        del self._sightings[source, offset]
        return self._skip(source, offset, offset, error)

    def _skip(self, source: Partition, offset: int, batch_offset: int, error: KafkaError) -> Record:
        """Read on behind one record; its coordinates stand for it."""
        self._consumer.seek(TopicPartition(*source, offset + 1))
        self._given_up[source] = _GivenUp(batch_offset, offset + 1)
        return Record(*source, offset, None, None, (), 0, corrupt=error.str())
