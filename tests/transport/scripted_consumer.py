"""Clients with a script of what they deliver, for sessions without a broker."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

from confluent_kafka import KafkaError, Message, TopicCollection, TopicPartition

Rebalance = Callable[["ScriptedConsumer", list[TopicPartition]], None]


def message(topic: str, offset: int, value: bytes = b"value") -> Message:
    """Return a record of partition 0, as a consumer delivers it."""
    return Message(topic=topic, partition=0, offset=offset, value=value)


def error_message(code: int, *, topic: str | None = None) -> Message:
    """Return an error, as a consumer delivers it in place of a record."""
    return Message(topic=topic, error=KafkaError(code))


class ScriptedConsumer:
    """Gets partition 0 at its first poll, then delivers the script's messages, list by list."""

    def __init__(self, script: Iterable[Sequence[Message]]) -> None:
        self._deliveries = deque(script)
        self._rest: deque[Message] = deque()
        self._partitions: list[TopicPartition] = []
        self._on_assign: Rebalance = lambda _consumer, _partitions: None

    def subscribe(self, topics: list[str], **callbacks: Rebalance) -> None:
        """Note what to assign."""
        self._partitions = [TopicPartition(topic, 0) for topic in topics]
        self._on_assign = callbacks["on_assign"]

    def incremental_assign(self, partitions: list[TopicPartition]) -> None:
        """Accept whatever is taken."""

    def poll(self, _timeout_s: float) -> Message | None:
        """Deliver the first message of the next list."""
        if self._partitions:
            partitions, self._partitions = self._partitions, []
            self._on_assign(self, partitions)
        self._rest = deque(self._deliveries.popleft() if self._deliveries else ())
        return self._rest.popleft() if self._rest else None

    def consume(self, num_messages: int, _timeout_s: float) -> list[Message]:
        """Deliver the rest of the list."""
        return [self._rest.popleft() for _ in range(min(num_messages, len(self._rest)))]

    def close(self) -> None:
        """Leave."""


class ScriptedAdmin:
    """Knows the id of every topic."""

    def describe_topics(
        self, topics: TopicCollection, **_options: object
    ) -> dict[str, "Future[Any]"]:
        """Answer at once."""
        answers: dict[str, Future[Any]] = {}
        for name in topics.topic_names:
            answers[name] = Future()
            answers[name].set_result(SimpleNamespace(topic_id=f"id-of-{name}"))
        return answers
