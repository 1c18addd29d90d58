"""The session: sole owner of one consumer and its producer, on one thread.

confluent-kafka's consumer belongs to one thread (a second one starves behind a tight poll loop),
rebalance callbacks run inside `poll`, and so nothing can change the assignment between the epoch
check in `publish` and the commit.

Without stopping to poll: `pause` costs the prefetched records, and `resume` alone leaves the
fetcher asleep for up to a second; a seek wakes it.
"""

import logging
from collections.abc import Callable, Collection, Sequence
from typing import Literal

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from transport.acknowledged import AcknowledgedPublisher
from transport.admin import admin_client, topic_ids
from transport.assignment import Assignment
from transport.client_log import client_log
from transport.deadline import Deadline
from transport.errors import SessionError
from transport.groups import transactional_id
from transport.message_record import record_of
from transport.port import AssignmentListener
from transport.publisher import Publisher
from transport.records import Claim, OutgoingRecord, Partition, Record
from transport.settings import ClientDict, KafkaSettings
from transport.transactions import TransactionalPublisher
from transport.trouble import ConsumerTrouble

logger = logging.getLogger(__name__)


class Session:
    """A member of a consumer group; fulfils `transport.port.SessionPort`."""

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        group: str,
        topics: Sequence[str],
        slot: str,
        prefetch: Literal["many", "few"] = "many",
        publisher: Publisher | None = None,
        make_consumer: Callable[[ClientDict], Consumer] | None = None,
        make_admin: Callable[[KafkaSettings], AdminClient] = admin_client,
    ) -> None:
        """Describe the member; nothing is connected before `open`.

        Args:
            settings: How to reach the brokers, and the delivery promise.
            group: Consumer group.
            topics: Topics to read.
            slot: The same over restarts of this process, different for every live one.
            prefetch: `many` small records, or `few` large ones.
            publisher: How to publish; None: as `settings.delivery` says.
            make_consumer: For tests that stand between us and librdkafka.
            make_admin: Likewise.
        """
        self._settings = settings
        self._group = group
        self._topics = list(topics)
        self._prefetch = prefetch
        self._publisher = publisher or _publisher(settings, transactional_id(group, slot))
        self._make_consumer = make_consumer or _make_consumer
        self._make_admin = make_admin
        self._assignment = Assignment()
        self._listener: AssignmentListener | None = None
        self._consumer: Consumer | None = None
        self._trouble: ConsumerTrouble | None = None
        self._paused: set[Partition] = set()
        self._is_paused = False
        self._topic_ids: dict[str, str] = {}

    def open(self, listener: AssignmentListener, /) -> None:
        """Fence the earlier instance of this slot, then join the group.

        Raises:
            BrokerUnreachable: If no broker answers.
            AccessDenied: If the broker refuses us.
        """
        self._listener = listener
        self._topic_ids = topic_ids(self._make_admin(self._settings), self._topics, self._settings)
        self._publisher.open()
        self._consumer = self._make_consumer(
            self._settings.consumer(self._group, prefetch=self._prefetch)
        )
        self._trouble = ConsumerTrouble(self._consumer, self._group, self._topic_ids)
        self._consumer.subscribe(
            self._topics,
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_lost,
        )

    def topic_id(self, topic: str) -> str:
        """Return the broker's UUID of a topic that this session reads; empty if it has none."""
        return self._topic_ids.get(topic, "")

    def poll(self, max_records: int, timeout_s: float, /) -> list[Record]:
        """Serve rebalances and callbacks; return new records in order within each partition."""
        consumer = self._open_consumer
        # `consume` alone would wait the whole timeout for `max_records`, not for the first.
        first = consumer.poll(timeout_s)
        messages = [] if first is None else [first]
        if messages and max_records > 1:
            messages += consumer.consume(max_records - 1, 0.0)
        self._publisher.serve()
        # All of them before any is accepted: an error among them may take partitions away.
        records = [self._record(message) for message in messages]
        return [record for record in records if record and self._assignment.accept(record)]

    def pause(self) -> None:
        """Deliver no records until `resume`; the prefetched ones are read again then."""
        self._is_paused = True
        self._pause(self._assignment.owned)

    def resume(self) -> None:
        """Deliver records again, from the first one not yet delivered."""
        self._is_paused = False
        partitions = [_of(partition) for partition in self._paused]
        self._open_consumer.resume(partitions)
        for source in self._paused:
            self._wake(source)
        self._paused.clear()

    def epoch(self, partition: Partition, /) -> int | None:
        """Return the present assignment epoch of an owned partition, None for any other."""
        return self._assignment.epoch(partition)

    def publish(self, outgoing: Sequence[OutgoingRecord], claims: Sequence[Claim], /) -> None:
        """Publish the records and settle the claims, all or nothing."""
        self._assignment.check(claims)
        offsets = [TopicPartition(*claim.source, claim.next_offset) for claim in claims]
        self._publisher.publish(outgoing, offsets, self._open_consumer)

    def close(self, deadline: Deadline, /) -> None:
        """Leave the group and free both clients."""
        self._listener = None
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.close()
        self._publisher.close(deadline)

    @property
    def _open_consumer(self) -> Consumer:
        if self._consumer is None:
            raise SessionError(f"the session of {self._group} is not open")
        return self._consumer

    def _record(self, message: Message) -> Record | None:
        error = message.error()
        if error is not None:
            if error.code() == KafkaError._MAX_POLL_EXCEEDED:
                self._lose(self._assignment.owned)
            return self._trouble.handle(message, error) if self._trouble else None
        return record_of(message)

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        sources = _sources(partitions)
        consumer.incremental_assign(partitions)
        self._assignment.assign(sources)
        if self._is_paused:
            self._pause(sources)
        if sources:
            logger.info("group %s: got %s", self._group, _names(sources))

    def _on_revoke(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Drain first, fence second: finished work of these partitions is still ours to publish."""
        sources = _sources(partitions)
        logger.info("group %s: giving up %s", self._group, _names(sources))
        if self._listener is not None:
            self._listener.drain(sources)
        self._lose(sources)

    def _on_lost(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        sources = _sources(partitions)
        logger.warning("group %s: lost %s", self._group, _names(sources))
        self._lose(sources)

    def _lose(self, sources: Collection[Partition]) -> None:
        # librdkafka keeps the pause over a rebalance, and would deliver nothing to the next epoch.
        paused = self._paused.intersection(sources)
        if paused and self._consumer is not None:
            self._consumer.resume([_of(source) for source in paused])
        self._paused.difference_update(sources)
        self._assignment.revoke(sources)
        if self._trouble is not None:
            self._trouble.forget(sources)
        if self._listener is not None:
            self._listener.forget(sources)

    def _pause(self, sources: Collection[Partition]) -> None:
        self._open_consumer.pause([_of(source) for source in sources])
        self._paused.update(sources)

    def _wake(self, source: Partition) -> None:
        next_offset = self._assignment.next_offset(source)
        if next_offset is None:
            return
        try:
            self._open_consumer.seek(TopicPartition(*source, next_offset))
        except KafkaException as exception:
            # It is not being fetched at the moment: it begins where it stopped, only later.
            logger.debug("no seek on %s: %s", source, exception)


def _publisher(settings: KafkaSettings, slot_id: str) -> Publisher:
    if settings.delivery == "exactly_once":
        return TransactionalPublisher(settings, slot_id)
    return AcknowledgedPublisher(settings)


def _make_consumer(config: ClientDict) -> Consumer:
    return Consumer(config, logger=client_log)


def _of(source: Partition) -> TopicPartition:
    return TopicPartition(*source)


def _sources(partitions: Sequence[TopicPartition]) -> list[Partition]:
    return [Partition(tp.topic, tp.partition) for tp in partitions]


def _names(sources: Collection[Partition]) -> str:
    return ", ".join(map(str, sorted(sources)))
