"""The `tasks` topic as a table: read it whole, change one task in it, lose no change of others.

A record is the whole state of a task, so a change is read, modify, write. Kafka has no
compare-and-set; here one transactional id per namespace gives it: a writer first fences every
earlier one and so ends its transaction, then reads to the end, then writes. If another writer
begins meanwhile, the commit is refused and the change is made again on the newer state.
"""

import logging
import random
import time
from collections.abc import Callable

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from messages.errors import MessageError, Reason
from messages.task_event import TaskEvent
from messages.task_event_codec import decode_task_event, encode_task_event
from messages.topics import TopicNames
from transport.admin import admin_client
from transport.client_log import client_log
from transport.deadline import Deadline
from transport.errors import (
    BrokerUnreachable,
    TableFollowerFailed,
    TopicConfigError,
    TransportError,
)
from transport.settings import KafkaSettings
from transport.table import TableFollower

logger = logging.getLogger(__name__)

# The producer's errors come as exceptions, too; being fenced is no emergency here, as it logs.
_silent = logging.getLogger(f"{__name__}.librdkafka")
_silent.setLevel(logging.CRITICAL + 1)

_FENCED = {
    KafkaError._FENCED,
    KafkaError.PRODUCER_FENCED,
    KafkaError.INVALID_PRODUCER_EPOCH,
}
_PRODUCER = {
    # While a transaction is open nobody sees later changes: one of a writer that died ends soon.
    "transaction.timeout.ms": 10_000,
    "message.timeout.ms": 8_000,
}
_FIRST_PAUSE_S = 0.2
_MAX_PAUSE_S = 3.2
_ABORT_TIMEOUT_S = 5.0
_VISIBLE_EVERY_S = 0.005
_FIRST_ANSWER_S = 10.0
"""A broker that does not answer by then is not there."""


class TaskTopicBusy(TransportError):
    """Other writers, or the broker, kept a change from being made in time."""


class TaskTopic:
    """The tasks of one namespace.

    Args:
        kafka: How to reach the brokers.
        names: The namespace's topics.
        timeout_s: Limit for each reading and for each change.
    """

    def __init__(self, kafka: KafkaSettings, names: TopicNames, *, timeout_s: float = 30.0) -> None:
        self._kafka = kafka
        self._topic = names.tasks
        self._transactional_id = f"{names.namespace}.task-registry"
        self._timeout_s = timeout_s

    def read(self) -> dict[str, TaskEvent]:
        """Return the state of every task, by name. Records that do not decode are left out.

        Raises:
            BrokerUnreachable: If the broker does not answer in time.
            TopicConfigError: If there is no such topic.
        """
        tasks = {}
        deadline = Deadline(self._timeout_s)
        self._check_topic(deadline)
        for name, value in self._values(deadline).items():
            try:
                tasks[name] = _decode(name, value)
            except MessageError as error:
                logger.warning("task event of %.64s is left out: %s", name, error)
        return tasks

    def change(self, name: str, make: Callable[[TaskEvent | None], TaskEvent]) -> TaskEvent:
        """Replace a task's state by what `make` returns of it, and return that.

        Waits until every reader sees it. Nothing is written where nothing changes.

        Args:
            name: The task.
            make: Called with the state of now, None for a task that never was; called again
                if another writer was faster.

        Raises:
            BrokerUnreachable: If the broker does not answer in time.
            TopicConfigError: If there is no such topic.
            TaskTopicBusy: If the change could not be made in time. It may be made again.
            MessageError: If the task's record does not decode, or the new one would not.
        """
        deadline = Deadline(self._timeout_s)
        self._check_topic(deadline)
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                return self._try_change(name, make, deadline)
            except KafkaException as exception:
                error: KafkaError = exception.args[0]
                if error.code() not in _FENCED:
                    raise TaskTopicBusy(
                        f"the task {name} may not be registered: {error.str()}; "
                        f"run the command again"
                    ) from exception
                if deadline.has_passed:
                    raise TaskTopicBusy(
                        f"others are changing {self._topic} all the time; run the command again"
                    ) from exception
            logger.info("another writer changed %s first, trying again", self._topic)
            # Unequal and growing, lest writers fence each other in turns.
            time.sleep(random.uniform(0, pause_s))
            pause_s = min(2 * pause_s, _MAX_PAUSE_S)

    def _try_change(
        self, name: str, make: Callable[[TaskEvent | None], TaskEvent], deadline: Deadline
    ) -> TaskEvent:
        producer = Producer(
            self._kafka.transactional_producer(self._transactional_id) | _PRODUCER,
            logger=_silent,
        )
        producer.init_transactions(deadline.left_s)
        value = self._values(deadline).get(name)
        old = None if value is None else _decode(name, value)
        new = make(old)
        if new == old:
            return new
        message = encode_task_event(new)
        _decode(name, message.value)
        written: list[Message] = []
        producer.begin_transaction()
        try:
            producer.produce(
                self._topic,
                message.value,
                key=name.encode(),
                headers=list(message.headers),
                on_delivery=lambda _error, delivered: written.append(delivered),
            )
            producer.commit_transaction(deadline.left_s)
        except KafkaException as exception:
            if exception.args[0].txn_requires_abort():
                producer.abort_transaction(_ABORT_TIMEOUT_S)
            raise
        self._wait_until_visible(written[0], deadline)
        return new

    def _wait_until_visible(self, written: Message, deadline: Deadline) -> None:
        """Wait until readers of committed records have what was written.

        A commit returns once it is decided. The broker shows the records when it has written the
        transaction's marker into their partition, which it does afterwards.
        """
        reader = Consumer(self._kafka.reader(), logger=client_log)
        partition = TopicPartition(self._topic, written.partition() or 0)
        try:
            while not deadline.has_passed:
                _, end = reader.get_watermark_offsets(partition, timeout=deadline.left_s)
                if end > (written.offset() or 0):
                    return
                time.sleep(_VISIBLE_EVERY_S)
        except KafkaException as exception:
            logger.debug("no end of %s: %s", self._topic, exception.args[0].str())
        finally:
            reader.close()
        logger.warning("the change of %s is made, but readers do not see it yet", self._topic)

    def _values(self, deadline: Deadline) -> dict[str, bytes]:
        """Read the topic to its end: the newest value of each key."""
        values: dict[str, bytes] = {}

        def apply(key: bytes, value: bytes | None) -> None:
            name = key.decode("utf-8", "replace")
            if value is None:
                values.pop(name, None)
            else:
                values[name] = value

        follower = TableFollower(self._kafka, self._topic, apply)
        follower.start()
        try:
            follower.wait_until_current(deadline.left_s)
        except (TimeoutError, TableFollowerFailed) as error:
            raise self._unreachable(str(error.__cause__ or error)) from error
        finally:
            follower.close()
        return values

    def _check_topic(self, deadline: Deadline) -> None:
        """Check at once what the reading and writing clients would try again and again."""
        admin = admin_client(self._kafka)
        timeout_s = min(deadline.left_s, _FIRST_ANSWER_S)
        try:
            topic = admin.list_topics(self._topic, timeout=timeout_s).topics[self._topic]
        except KafkaException as exception:
            raise self._unreachable(exception.args[0].str()) from exception
        if topic.error is not None:
            raise TopicConfigError(self._topic, "the topic", "present", topic.error.str())

    def _unreachable(self, what: str) -> BrokerUnreachable:
        return BrokerUnreachable(self._kafka.bootstrap_servers, what)


def _decode(name: str, value: bytes) -> TaskEvent:
    event = decode_task_event(value)
    if event.name != name:
        raise MessageError(Reason.BAD_KEY, "the key is not the name of the task")
    return event
