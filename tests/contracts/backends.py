"""The two logs behind the contract suite, with the same handles for the tests."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from transport.errors import TransactionAborted
from transport.memory import MemoryLog
from transport.message_record import record_of
from transport.port import SessionPort
from transport.publisher import DeliveryReports, produce_all
from transport.records import OutgoingRecord, Partition, Record
from transport.session import Session
from transport.settings import KafkaSettings
from transport.transactions import TransactionalPublisher

BeforeCommit = Callable[[], None]

_LIMIT_S = 110.0
"""Of one request, a restart of the broker on a busy machine included; less than producers try."""


class Crash(Exception):
    """Raised by a test in place of a process's death."""


class Backend(Protocol):
    """What a test needs of a log."""

    def name(self, short: str) -> str:
        """Return the full name of a topic or group."""
        ...

    def create_topic(self, topic: str, num_partitions: int) -> None:
        """Make a topic."""
        ...

    def append(self, topic: str, values: Sequence[bytes], partition: int) -> None:
        """Publish values to one partition, in order."""
        ...

    def append_record(self, record: OutgoingRecord) -> None:
        """Publish a record; its topic's name is the full one."""
        ...

    def session(
        self, group: str, topics: Sequence[str], slot: str, before_commit: BeforeCommit
    ) -> SessionPort:
        """Return a member, not yet opened."""
        ...

    def visible(self, topic: str) -> list[Record]:
        """Return what a read_committed reader sees."""
        ...

    def everything(self, topic: str) -> list[Record]:
        """Return what a read_uncommitted reader sees."""
        ...

    def committed(self, group: str, topic: str) -> dict[Partition, int]:
        """Return the group's settled offsets."""
        ...


def aborting(num_times: int) -> BeforeCommit:
    """Abort the first transactions."""
    left = [num_times]

    def before_commit() -> None:
        if left[0] > 0:
            left[0] -= 1
            raise TransactionAborted("the test wants it so")

    return before_commit


class MemoryBackend:
    """The in-memory log."""

    def __init__(self) -> None:
        self.log = MemoryLog()

    def name(self, short: str) -> str:
        """Return the full name of a topic or group."""
        return short

    def create_topic(self, topic: str, num_partitions: int) -> None:
        """Make a topic."""
        self.log.create_topic(topic, num_partitions)

    def append(self, topic: str, values: Sequence[bytes], partition: int) -> None:
        """Publish values to one partition, in order."""
        for value in values:
            self.log.append(topic, value, partition=partition)

    def append_record(self, record: OutgoingRecord) -> None:
        """Publish a record; its topic's name is the full one."""
        self.log.append(record.topic, record.value, record.key, record.headers, record.partition)

    def session(
        self, group: str, topics: Sequence[str], slot: str, before_commit: BeforeCommit
    ) -> SessionPort:
        """Return a member, not yet opened."""
        return self.log.session(group, topics, f"{group}.{slot}", before_commit)

    def visible(self, topic: str) -> list[Record]:
        """Return what a read_committed reader sees."""
        return self.log.read(topic)

    def everything(self, topic: str) -> list[Record]:
        """Return what a read_uncommitted reader sees."""
        return self.log.read(topic, committed_only=False)

    def committed(self, group: str, topic: str) -> dict[Partition, int]:
        """Return the group's settled offsets."""
        return {p: o for p, o in self.log.committed_offsets(group).items() if p.topic == topic}


class _InterceptedProducer(Producer):
    """librdkafka's producer with a test standing in front of every commit."""

    def __init__(self, config: dict[str, Any], before_commit: BeforeCommit) -> None:
        super().__init__(config | {"log_level": 2})
        self._before_commit = before_commit

    def commit_transaction(self, *args: float) -> None:
        """Let the test act, then commit; its abort is what a broker's refusal would be.

        Everything is written when the test acts, as it is when a commit is asked for.
        """
        self.flush(_LIMIT_S)
        try:
            self._before_commit()
        except TransactionAborted as error:
            code = KafkaError._FAIL
            raise KafkaException(KafkaError(code, str(error), txn_requires_abort=True)) from error
        super().commit_transaction(*args)


class KafkaBackend:
    """A real broker."""

    def __init__(self, bootstrap_servers: str, prefix: str) -> None:
        self.settings = KafkaSettings(bootstrap_servers=bootstrap_servers)
        self._prefix = prefix
        self._admin = AdminClient(self.settings.admin())
        self._producer = Producer(self.settings.query_producer() | {"log_level": 2})

    def name(self, short: str) -> str:
        """Return the full name of a topic or group."""
        return f"{self._prefix}.{short}"

    def create_topic(self, topic: str, num_partitions: int) -> None:
        """Make a topic and wait until it can be used."""
        config = {"message.timestamp.type": "LogAppendTime"}
        new = NewTopic(self.name(topic), num_partitions, 1, config=config)
        self._admin.create_topics([new])[self.name(topic)].result(_LIMIT_S)

    def append(self, topic: str, values: Sequence[bytes], partition: int) -> None:
        """Publish values to one partition, in order; a broker's restart is waited for."""
        name = self.name(topic)
        self._append([OutgoingRecord(name, value, partition=partition) for value in values])

    def append_record(self, record: OutgoingRecord) -> None:
        """Publish a record; its topic's name is the full one."""
        self._append([record])

    def session(
        self, group: str, topics: Sequence[str], slot: str, before_commit: BeforeCommit
    ) -> SessionPort:
        """Return a member, not yet opened."""

        def make_producer(settings: KafkaSettings, transactional_id: str) -> Producer:
            return _InterceptedProducer(
                settings.transactional_producer(transactional_id), before_commit
            )

        group = self.name(group)
        return Session(
            self.settings,
            group=group,
            topics=[self.name(topic) for topic in topics],
            slot=slot,
            publisher=TransactionalPublisher(self.settings, f"{group}.{slot}", make_producer),
        )

    def visible(self, topic: str) -> list[Record]:
        """Return what a read_committed reader sees."""
        return self._read(topic, "read_committed")

    def everything(self, topic: str) -> list[Record]:
        """Return what a read_uncommitted reader sees."""
        return self._read(topic, "read_uncommitted")

    def committed(self, group: str, topic: str) -> dict[Partition, int]:
        """Return the group's settled offsets."""
        # By a consumer that never joins: the admin client's question can end the process where a
        # coordinator moves (librdkafka 2.16.1, issue 5040).
        config = self.settings.reader(group=self.name(group))
        consumer = Consumer(config | {"log_level": 2})
        try:
            found = consumer.committed(self._partitions(consumer, topic), timeout=_LIMIT_S)
        finally:
            consumer.close()
        assert [tp.error for tp in found if tp.error is not None] == []
        return {Partition(topic, tp.partition): tp.offset for tp in found if tp.offset >= 0}

    def _read(self, topic: str, isolation: str) -> list[Record]:
        """Read the topic to its present end, without a group."""
        config = self.settings.reader(start="earliest", reports_ends=True)
        consumer = Consumer(config | {"isolation.level": isolation, "log_level": 2})
        records: list[Record] = []
        try:
            partitions = self._partitions(consumer, topic)
            consumer.assign(partitions)
            unfinished = {tp.partition for tp in partitions}
            while unfinished:
                message = consumer.poll(_LIMIT_S)
                assert message is not None, f"{topic} was not read to its end in {_LIMIT_S:.0f} s"
                error = message.error()
                if error is None:
                    records.append(replace(record_of(message), topic=topic))
                elif error.code() == KafkaError._PARTITION_EOF:
                    unfinished.discard(message.partition() or 0)
        finally:
            consumer.close()
        return sorted(records, key=lambda record: (record.partition, record.offset))

    def _append(self, records: Sequence[OutgoingRecord]) -> None:
        reports = DeliveryReports()
        produce_all(self._producer, records, reports)
        assert self._producer.flush(_LIMIT_S) == 0
        assert reports.is_complete, reports.last_error

    def _partitions(self, consumer: Consumer, topic: str) -> list[TopicPartition]:
        """Return the beginnings of a topic's partitions."""
        name = self.name(topic)
        partitions = consumer.list_topics(name, timeout=_LIMIT_S).topics[name].partitions
        return [TopicPartition(name, index, 0) for index in partitions]
