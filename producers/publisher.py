"""Publishes queries and tells what became of each: stored where, rejected, or nobody knows."""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from messages.origin import Origin
from producers.errors import ClientClosed, PublishDoubtful, PublishError, PublishRejected
from transport.client_log import client_log

OnDelivery = Callable[[Origin | PublishError], None]

# Errors after which the record is certainly not in the topic. Everything else, a time-out above
# all, leaves it open: librdkafka's "possibly persisted" is not told to Python.
_CERTAINLY_NOT_STORED = frozenset(
    {
        KafkaError._PURGE_QUEUE,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.INVALID_RECORD,
        KafkaError.POLICY_VIOLATION,
    }
)


class PublisherFull(Exception):
    """The producer's queue has no room; call again when deliveries have been reported."""


class Publisher:
    """Sole owner of one idempotent producer and of the thread that serves its reports."""

    def __init__(self, config: Mapping[str, Any], topic: str, topic_id: str) -> None:
        self._topic = topic
        self._topic_id = topic_id
        self._producer = Producer(dict(config), logger=client_log)
        self._closing = threading.Event()
        self._thread = threading.Thread(
            target=self._serve_reports, name="petstream-publisher", daemon=True
        )
        self._thread.start()

    def publish(
        self,
        value: bytes,
        key: bytes | None,
        headers: Sequence[tuple[str, bytes]],
        on_delivery: OnDelivery,
    ) -> None:
        """Hand one record to the producer.

        Args:
            value: The encoded query.
            key: The record's key.
            headers: Its headers.
            on_delivery: Called once, on this object's thread, with the origin or the error.

        Raises:
            PublisherFull: If there is no room now; `on_delivery` will not be called.
            PublishRejected: If the record can never be sent; `on_delivery` will not be called.
            ClientClosed: After `close`.
        """
        if self._closing.is_set():
            raise ClientClosed("the client is closed")
        try:
            self._producer.produce(
                self._topic,
                value=value,
                key=key,
                headers=list(headers),
                on_delivery=lambda error, record: on_delivery(self._outcome(error, record)),
            )
        except BufferError as error:
            raise PublisherFull from error
        except KafkaException as error:
            raise PublishRejected(f"{self._topic}: {error.args[0].str()}") from error

    def _outcome(self, error: KafkaError | None, record: Message) -> Origin | PublishError:
        if error is None:
            offset = record.offset()
            partition = record.partition()
            if offset is None or offset < 0 or partition is None:
                # A retry that the broker recognised after it forgot the offset of the original.
                return PublishDoubtful(f"{self._topic}: stored, but its offset is not known")
            return Origin(self._topic, self._topic_id, partition, offset)
        kind = PublishRejected if error.code() in _CERTAINLY_NOT_STORED else PublishDoubtful
        return kind(f"{self._topic}: {error.str()}")

    def _serve_reports(self) -> None:
        while not self._closing.is_set():
            self._producer.poll(0.2)

    def close(self, timeout_s: float) -> int:
        """Wait for outstanding deliveries, then stop.

        Returns:
            How many records were still without a report; each gets `PublishDoubtful` or
            `PublishRejected`.
        """
        if self._closing.is_set():
            return 0
        self._closing.set()
        self._thread.join()
        unreported = int(self._producer.flush(timeout_s))
        if unreported:
            self._producer.purge(in_queue=True, in_flight=True, blocking=True)
            self._producer.flush(1.0)
        return unreported
