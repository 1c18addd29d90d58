"""At-least-once publishing: an idempotent producer, all acknowledgements, then the offsets.

A crash between the two publishes the same answers again; readers know them by their origin.
"""

from collections.abc import Sequence

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from transport.client_log import client_log
from transport.deadline import Deadline
from transport.errors import TransactionAborted
from transport.publisher import DeliveryReports, check_sizes, produce_all
from transport.records import OutgoingRecord
from transport.settings import KafkaSettings

_DELIVERY_S = 50.0
"""A little over the producer's own `message.timeout.ms`, so that every record is reported."""


class AcknowledgedPublisher:
    """Fulfils `transport.publisher.Publisher` without transactions."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._producer = Producer(settings.idempotent_producer(), logger=client_log)

    def open(self) -> None:
        """Do nothing: without transactions nobody is fenced."""

    def serve(self) -> None:
        """Serve the producer's callbacks."""
        self._producer.poll(0)

    def publish(
        self,
        outgoing: Sequence[OutgoingRecord],
        offsets: Sequence[TopicPartition],
        consumer: Consumer,
        /,
    ) -> None:
        """Publish, wait for every acknowledgement, then commit the offsets."""
        check_sizes(outgoing)
        reports = DeliveryReports()
        try:
            produce_all(self._producer, outgoing, reports)
            self._producer.flush(_DELIVERY_S)
            if reports.too_large is not None:
                raise reports.too_large
            if not reports.is_complete:
                raise TransactionAborted(
                    f"{reports.num_sent - reports.num_acknowledged} of {reports.num_sent} records "
                    f"were not acknowledged: {reports.last_error or 'no answer'}"
                )
            for partition in consumer.commit(offsets=list(offsets), asynchronous=False) or ():
                if partition.error is not None:
                    raise TransactionAborted(f"offsets not committed: {partition.error.str()}")
        except KafkaException as exception:
            raise TransactionAborted(exception.args[0].str()) from exception

    def close(self, deadline: Deadline, /) -> None:
        """Wait for what was handed over, then free the producer."""
        self._producer.flush(deadline.left_s)
        self._producer.close()
