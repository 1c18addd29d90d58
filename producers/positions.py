"""Where the partitions of a topic begin and end."""

import time
from collections.abc import Mapping

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from producers.errors import ConnectionFailed
from transport.deadline import Deadline

Positions = Mapping[int, int]
"""Next offset to read, by partition."""

_AGAIN_AFTER_S = 0.1
# What a broker that restarts, or a topic that was just made, answers for a moment.
_PASSING = frozenset(
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
    }
)


def ends(admin: AdminClient, topic: str, timeout_s: float) -> dict[int, int]:
    """Return the end of every partition of `topic`, open transactions included.

    What is appended from now on stands at or behind it, and nothing else does.

    Raises:
        ConnectionFailed: If no broker answers in time or there is no such topic.
    """
    return _offsets(admin, topic, OffsetSpec.latest(), timeout_s)  # type: ignore[no-untyped-call]


def beginnings(admin: AdminClient, topic: str, timeout_s: float) -> dict[int, int]:
    """Return the oldest offset that is kept of every partition of `topic`.

    Raises:
        ConnectionFailed: If no broker answers in time or there is no such topic.
    """
    return _offsets(admin, topic, OffsetSpec.earliest(), timeout_s)  # type: ignore[no-untyped-call]


def _offsets(admin: AdminClient, topic: str, spec: OffsetSpec, timeout_s: float) -> dict[int, int]:
    deadline = Deadline(timeout_s)
    while True:
        try:
            described = admin.list_topics(topic, timeout=max(0.1, deadline.left_s)).topics[topic]
            if described.error is not None:
                raise ConnectionFailed(
                    f"topic {topic}: {described.error.str()}; run petstream topics create"
                )
            listed = admin.list_offsets(
                {TopicPartition(topic, partition): spec for partition in described.partitions},
                request_timeout=max(0.1, deadline.left_s),
            )
            return {tp.partition: future.result().offset for tp, future in listed.items()}
        except KafkaException as exception:
            error: KafkaError = exception.args[0]
            if error.code() not in _PASSING or deadline.left_s <= _AGAIN_AFTER_S:
                raise ConnectionFailed(
                    f"no answer about topic {topic}: {error.str()}; check that the broker runs "
                    "and KAFKA_BOOTSTRAP_SERVERS"
                ) from exception
            time.sleep(_AGAIN_AFTER_S)
