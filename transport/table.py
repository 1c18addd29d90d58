"""Follows a compacted topic: every record from the beginning, then whatever is added.

No consumer group: every process has the whole table, and nothing is committed.
"""

import logging
import threading
from collections.abc import Callable

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from transport.client_log import client_log
from transport.deadline import Deadline
from transport.errors import BrokerUnreachable, TableFollowerFailed, TopicConfigError
from transport.settings import KafkaSettings

logger = logging.getLogger(__name__)

_POLL_S = 0.1
_REQUEST_S = 10.0
_MAX_RECORDS = 500
_BEGINNING = -2
"""librdkafka's `OFFSET_BEGINNING`."""
_FINAL = {KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.UNKNOWN_TOPIC_OR_PART}

Apply = Callable[[bytes, bytes | None], None]
"""Told of a key and its value; None: the key was deleted. Called on the follower's thread."""


class TableFollower:
    """Applies the records of a topic in order, on its own thread, until closed.

    An error of `apply` or of the consumer ends the thread; `wait_until_current` and
    `raise_if_failed` report it.
    """

    def __init__(self, settings: KafkaSettings, topic: str, apply: Apply) -> None:
        self._settings = settings
        self._topic = topic
        self._apply = apply
        self._closed = threading.Event()
        self._progress = threading.Condition()
        self._reached: dict[int, int] = {}
        self._behind: set[int] = set()
        """Partitions of which there is more to read, as far as was heard."""
        self._num_asked = 0
        self._num_answered = 0
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name=f"table {topic}", daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def wait_until_current(self, timeout_s: float) -> None:
        """Wait until everything that is committed in the topic now has been applied.

        Raises:
            TableFollowerFailed: If the follower ended.
            TimeoutError: If it takes longer than `timeout_s`.
        """
        with self._progress:
            self._num_asked += 1
            ticket = self._num_asked
            done = self._progress.wait_for(
                lambda: self._error is not None or self._num_answered >= ticket, timeout_s
            )
        self.raise_if_failed()
        if not done:
            raise TimeoutError(f"{self._topic} was not read to its end within {timeout_s:.0f} s")

    def raise_if_failed(self) -> None:
        """Report why the thread ended, if it did.

        Raises:
            TableFollowerFailed: If it ended with an error.
        """
        if self._error is not None:
            raise TableFollowerFailed(
                f"following {self._topic} failed: {self._error}; restart the process"
            ) from self._error

    def close(self) -> None:
        """Stop following."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        consumer = Consumer(
            self._settings.reader(start="earliest", reports_ends=True), logger=client_log
        )
        try:
            partitions = self._partitions(consumer)
            self._reached = dict.fromkeys(partitions, 0)
            self._behind = set(partitions)
            consumer.assign([TopicPartition(self._topic, p, _BEGINNING) for p in partitions])
            while not self._closed.is_set():
                self._answer_waiters(consumer)
                # `consume` with a timeout waits all of it, also for a single record.
                first = consumer.poll(_POLL_S)
                if first is not None:
                    for message in (first, *consumer.consume(_MAX_RECORDS, 0)):
                        self._take(message)
        except Exception as error:  # noqa: BLE001 - reported by raise_if_failed, on the caller's thread
            with self._progress:
                self._error = error
                self._progress.notify_all()
        finally:
            consumer.close()

    def _partitions(self, consumer: Consumer) -> list[int]:
        deadline = Deadline(_REQUEST_S)
        while True:
            try:
                found = consumer.list_topics(self._topic, timeout=_REQUEST_S).topics[self._topic]
            except KafkaException as exception:
                raise BrokerUnreachable(
                    self._settings.bootstrap_servers, exception.args[0].str()
                ) from exception
            if found.error is None and found.partitions:
                return sorted(found.partitions)
            if deadline.has_passed or self._closed.wait(0.2):
                raise TopicConfigError(self._topic, "topic", "present", "missing")

    def _take(self, message: Message) -> None:
        error = message.error()
        partition, offset = message.partition(), message.offset()
        if error is None and partition is not None and offset is not None:
            self._apply(message.key() or b"", message.value())
            self._reached[partition] = offset + 1
            self._behind.add(partition)
        elif error is not None and error.code() == KafkaError._PARTITION_EOF:
            # Behind the last record there may be control records of transactions.
            self._reached[partition or 0] = offset or 0
            self._behind.discard(partition or 0)
        elif error is not None and (error.fatal() or error.code() in _FINAL):
            raise TableFollowerFailed(error.str())
        elif error is not None:
            logger.warning("following %s: %s", self._topic, error.str())

    def _answer_waiters(self, consumer: Consumer) -> None:
        with self._progress:
            num_asked = self._num_asked
            # An end is asked for behind the fetch that waits for more, up to half a second: not
            # while there is more to read.
            if num_asked == self._num_answered or self._behind:
                return
        for partition, reached in self._reached.items():
            source = TopicPartition(self._topic, partition)
            try:
                _, end = consumer.get_watermark_offsets(source, timeout=_REQUEST_S)
            except KafkaException as exception:
                logger.warning("no end of %s: %s", self._topic, exception.args[0].str())
                return
            if reached < end:
                return
        with self._progress:
            self._num_answered = num_asked
            self._progress.notify_all()
