"""A stand-in for scheduler and workers, on a real broker: answers as a test says."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Self

from confluent_kafka import Consumer, Producer, TopicPartition

from messages.answer_codec import encode_answer
from messages.errors import ErrorAnswer
from messages.origin import Origin
from messages.query_codec import IncomingQuery, decode_query
from messages.result import Result
from messages.topics import TopicNames
from transport.deadline import Deadline
from transport.settings import KafkaSettings

Behaviour = Callable[[IncomingQuery, Origin], Sequence[Result | ErrorAnswer]]
"""The answers to publish to one query: usually one, none, or one twice."""


def echo(incoming: IncomingQuery, origin: Origin) -> list[Result | ErrorAnswer]:
    """Answer with the text as the label, so that a test sees whose answer it got."""
    query = incoming.query
    return [
        Result(
            id=query.id,
            task=query.task,
            task_revision=1,
            origin=origin,
            level=0,
            confidence=0.75,
            labels=(query.text,),
            scores=(0.75,),
            input_digest=incoming.input_digest,
        )
    ]


def twice(incoming: IncomingQuery, origin: Origin) -> list[Result | ErrorAnswer]:
    """Answer every query twice, the second time with another attempt."""
    (answer,) = echo(incoming, origin)
    return [answer, replace(answer, attempt=2)]


def silent(_: IncomingQuery, __: Origin) -> list[Result | ErrorAnswer]:
    """Never answer."""
    return []


class StandIn:
    """Reads the queries of a namespace from their beginning and answers them."""

    def __init__(self, bootstrap_servers: str, namespace: str, behaviour: Behaviour = echo) -> None:
        settings = KafkaSettings(bootstrap_servers=bootstrap_servers)
        self.behaviour = behaviour
        self.queries: list[IncomingQuery] = []
        self.places: list[tuple[int, int]] = []
        """Partition and offset of each of `queries`."""
        self._topics = TopicNames(namespace)
        self._producer = Producer(settings.idempotent_producer() | {"linger.ms": 0})
        self._consumer = Consumer(settings.reader(start="earliest"))
        known = self._consumer.list_topics(self._topics.queries, timeout=60)
        partitions = known.topics[self._topics.queries].partitions
        self._consumer.assign([TopicPartition(self._topics.queries, p, 0) for p in partitions])
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def _serve(self) -> None:
        while not self._stop.is_set():
            record = self._consumer.poll(0.05)
            if record is None or record.error() is not None:
                continue
            partition, offset = record.partition(), record.offset()
            assert partition is not None
            assert offset is not None
            incoming = decode_query(
                record.value(),
                record.key(),
                record.headers() or [],  # type: ignore[arg-type]
                partition=partition,
                offset=offset,
            )
            self.places.append((partition, offset))
            self.queries.append(incoming)
            for answer in self.behaviour(incoming, self._origin(partition, offset)):
                self.publish(answer, incoming)

    def _origin(self, partition: int, offset: int) -> Origin:
        return Origin(self._topics.queries, "", partition, offset)

    def answer(self, number: int) -> None:
        """Answer the n-th of `queries` now, with its text as the label."""
        (answer,) = echo(self.queries[number], self._origin(*self.places[number]))
        self.publish(answer, self.queries[number])

    def publish(self, answer: Result | ErrorAnswer, incoming: IncomingQuery) -> None:
        """Publish one answer."""
        message = encode_answer(answer, incoming.reply)
        self.publish_raw(message.value, incoming.reply.key, message.headers)

    def publish_raw(
        self, value: bytes, key: bytes | None, headers: Sequence[tuple[str, bytes]]
    ) -> None:
        """Publish any record to the results topic."""
        self._producer.produce(self._topics.results, value, key, headers=list(headers))
        self._producer.flush(60)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._consumer.close()
        self._producer.flush(60)


def wait_until(is_so: Callable[[], bool], timeout_s: float = 60.0) -> None:
    """Wait for what another thread does.

    Raises:
        TimeoutError: If it does not happen.
    """
    deadline = Deadline(timeout_s)
    while not is_so():
        if deadline.has_passed:
            raise TimeoutError(f"not within {timeout_s:g} s")
        time.sleep(0.01)
