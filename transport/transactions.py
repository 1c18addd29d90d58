"""Exactly-once publishing: records and offsets in one transaction, and what to do in doubt.

librdkafka speaks the transaction protocol of before KIP-890, in which a late request of one
transaction may decide the next one (KAFKA-17754). Hence: a commit whose outcome was doubtful for
a while is followed by a new producer, whose `init_transactions` raises the epoch and so fences
every request still on its way; a commit that timed out is never followed by an abort; and an
outcome that stays unknown is asked of the group coordinator, never guessed.
"""

import logging
from collections.abc import Callable, Sequence
from time import monotonic

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from transport.client_log import client_log
from transport.deadline import Deadline
from transport.errors import (
    AccessDenied,
    BrokerUnreachable,
    OutcomeUnknown,
    SessionError,
    SessionFenced,
    TransactionAborted,
)
from transport.publisher import DeliveryReports, check_sizes, produce_all
from transport.records import OutgoingRecord
from transport.settings import TRANSACTION_TIMEOUT_MS, KafkaSettings

logger = logging.getLogger(__name__)

_INIT_S = 60.0
_INIT_SLICE_S = 2.0
"""One call blocks no longer than this, so that signals are served in between."""
_OFFSETS_S = 15.0
_DOUBT_AFTER_S = 5.0
"""A commit that took longer was retried inside the client: as doubtful as one that failed."""
_GIVE_UP_S = 2.5 * TRANSACTION_TIMEOUT_MS / 1000
_FIRST_REPORT_S = 5.0
_ABORT_S = 30.0
_COMMITTED_S = 15.0

_FENCED = {KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH}
_DENIED = {
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
}


class TransactionalPublisher:
    """Fulfils `transport.publisher.Publisher` with one transaction per call."""

    def __init__(
        self,
        settings: KafkaSettings,
        transactional_id: str,
        make_producer: Callable[[KafkaSettings, str], Producer] | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Make the publisher of one slot.

        Args:
            settings: How to reach the brokers.
            transactional_id: Of the slot; stable over restarts.
            make_producer: For tests that stand between us and librdkafka.
            clock: Seconds, never going back.
        """
        self._settings = settings
        self._transactional_id = transactional_id
        self._make_producer = make_producer or _make_producer
        self._clock = clock
        self._producer: Producer | None = None
        self.num_producers = 0
        """Producers made so far; more than one means that an outcome was doubtful."""

    def open(self) -> None:
        """Fence the earlier instance of this slot, ending its open transaction.

        Raises:
            BrokerUnreachable: If no coordinator answers within a minute.
            AccessDenied: If the transactional id is not ours to use.
        """
        producer = self._make_producer(self._settings, self._transactional_id)
        self.num_producers += 1
        deadline = Deadline(_INIT_S, self._clock)
        while True:
            try:
                producer.init_transactions(_INIT_SLICE_S)
                break
            except KafkaException as exception:
                error = _error_of(exception)
                if error.code() in _DENIED:
                    raise AccessDenied(
                        f"transactional id {self._transactional_id}: {error.str()}"
                    ) from exception
                if not error.retriable() or deadline.has_passed:
                    raise BrokerUnreachable(
                        self._settings.bootstrap_servers, error.str()
                    ) from exception
        self._producer = producer

    def serve(self) -> None:
        """Serve the producer's callbacks."""
        self._open_producer.poll(0)

    def publish(
        self,
        outgoing: Sequence[OutgoingRecord],
        offsets: Sequence[TopicPartition],
        consumer: Consumer,
        /,
    ) -> None:
        """Publish and settle in one transaction."""
        check_sizes(outgoing)
        reports = DeliveryReports()
        started_s = self._clock()
        try:
            self._fill(outgoing, offsets, consumer, reports)
        except KafkaException as exception:
            # No commit was asked for yet, so nothing can be visible.
            self._undo(_error_of(exception), reports, exception)
        self._commit(offsets, consumer, reports, started_s)

    def close(self, _deadline: Deadline, /) -> None:
        """Free the producer, aborting a transaction whose commit was not asked for."""
        producer, self._producer = self._producer, None
        if producer is not None:
            _close(producer)

    @property
    def _open_producer(self) -> Producer:
        if self._producer is None:
            raise SessionError(f"the producer of {self._transactional_id} is not open")
        return self._producer

    def _fill(
        self,
        outgoing: Sequence[OutgoingRecord],
        offsets: Sequence[TopicPartition],
        consumer: Consumer,
        reports: DeliveryReports,
    ) -> None:
        producer = self._open_producer
        producer.begin_transaction()
        produce_all(producer, outgoing, reports)
        deadline = Deadline(2 * _OFFSETS_S, self._clock)
        while True:
            try:
                producer.send_offsets_to_transaction(
                    list(offsets), consumer.consumer_group_metadata(), _OFFSETS_S
                )
            except KafkaException as exception:
                if not _error_of(exception).retriable() or deadline.has_passed:
                    raise
            else:
                return

    def _commit(
        self,
        offsets: Sequence[TopicPartition],
        consumer: Consumer,
        reports: DeliveryReports,
        started_s: float,
    ) -> None:
        is_doubtful = False
        while True:
            try:
                # No timeout: librdkafka warns that others than its own desynchronise its state.
                self._open_producer.commit_transaction()
                break
            except KafkaException as exception:
                error = _error_of(exception)
                is_doubtful = is_doubtful or self._clock() - started_s > _DOUBT_AFTER_S
                must_abort = error.txn_requires_abort() and not error.fatal()
                if must_abort and not is_doubtful:
                    self._undo(error, reports, exception)
                if must_abort or error.fatal() or not error.retriable():
                    self._settle_doubt(error, offsets, consumer, reports, started_s, exception)
                    return
                if self._clock() - started_s > _GIVE_UP_S:
                    # The restarted process learns the outcome from its first committed offsets.
                    self._producer = None
                    raise OutcomeUnknown(
                        f"no answer to a commit of {self._transactional_id} for "
                        f"{_GIVE_UP_S:.0f} s ({error.str()}); restart when the broker is back"
                    ) from exception
                is_doubtful = True
                logger.warning("commit in doubt, asking again: %s", error.str())
        if not reports.is_complete:
            raise OutcomeUnknown(
                f"a transaction was committed with {reports.num_acknowledged} of "
                f"{reports.num_sent} records acknowledged; restart, and report this"
            )
        if is_doubtful or self._clock() - started_s > _DOUBT_AFTER_S:
            logger.warning("commit took %.1f s; producer replaced", self._clock() - started_s)
            self._replace()

    def _settle_doubt(
        self,
        error: KafkaError,
        offsets: Sequence[TopicPartition],
        consumer: Consumer,
        reports: DeliveryReports,
        started_s: float,
        cause: KafkaException,
    ) -> None:
        """After a commit failed for good: fence it, then ask whether it happened.

        Raises:
            SessionFenced: If another instance took over.
            OutcomeUnknown: If that cannot be learnt.
            SessionError: If it did not happen; `TransactionAborted` if it may be tried again.
        """
        timed_out = self._clock() - started_s > TRANSACTION_TIMEOUT_MS / 1000
        if error.code() in _FENCED and not timed_out:
            raise self._fenced() from cause
        logger.warning("commit failed (%s); asking whether it happened", error.str())
        self._replace()
        if not _are_committed(consumer, offsets):
            raise _why_not(error, reports) from cause

    def _undo(self, error: KafkaError, reports: DeliveryReports, cause: KafkaException) -> None:
        """Abort the transaction, or replace a producer that cannot; always raises."""
        if error.code() in _FENCED:
            raise self._fenced() from cause
        if error.code() not in _DENIED and (error.fatal() or not self._abort(reports)):
            self._replace()
        raise _why_not(error, reports) from cause

    def _abort(self, reports: DeliveryReports) -> bool:
        """Abort; return whether the producer can go on."""
        producer = self._open_producer
        # An abort while the first AddPartitionsToTxn is under way can be fatal (librdkafka #4849).
        first_report = Deadline(_FIRST_REPORT_S, self._clock)
        while reports.num_sent and not reports.num_reported and not first_report.has_passed:
            producer.poll(0.05)
        deadline = Deadline(_ABORT_S, self._clock)
        while not deadline.has_passed:
            try:
                producer.abort_transaction()
            except KafkaException as exception:
                error = _error_of(exception)
                if error.fatal() or not error.retriable():
                    logger.warning("abort failed: %s; producer replaced", error.str())
                    return False
            else:
                return True
        return False

    def _replace(self) -> None:
        """Make a new producer of the same id: its epoch fences whatever the old one sent."""
        old, self._producer = self._producer, None
        self.open()
        # Closed only now: closing earlier could send an abort that races with a late commit.
        if old is not None:
            _close(old)

    def _fenced(self) -> SessionFenced:
        return SessionFenced(
            f"another process uses the transactional id {self._transactional_id}; "
            "give every live process its own slot"
        )


def _make_producer(settings: KafkaSettings, transactional_id: str) -> Producer:
    return Producer(settings.transactional_producer(transactional_id), logger=client_log)


def _close(producer: Producer) -> None:
    try:
        producer.close()
    except KafkaException as exception:
        # It was fenced, or failed for good: the coordinator ends its transaction.
        logger.debug("producer closed: %s", exception)


def _error_of(exception: KafkaException) -> KafkaError:
    error: KafkaError = exception.args[0]
    return error


def _why_not(error: KafkaError, reports: DeliveryReports) -> SessionError:
    """Return as which error a transaction that did not happen is told."""
    if error.code() in _DENIED:
        return AccessDenied(f"publishing is not allowed: {error.str()}")
    if reports.too_large is not None:
        return reports.too_large
    return TransactionAborted(reports.last_error or error.str())


def _are_committed(consumer: Consumer, offsets: Sequence[TopicPartition]) -> bool:
    """Ask the group coordinator whether the offsets stand.

    The answer is stable: read_committed consumers wait for pending transactional offsets.

    Raises:
        OutcomeUnknown: If the coordinator does not answer, or not for every partition.
    """
    wanted = {(tp.topic, tp.partition): tp.offset for tp in offsets}
    asked = [TopicPartition(tp.topic, tp.partition) for tp in offsets]
    try:
        found = consumer.committed(asked, timeout=_COMMITTED_S)
    except KafkaException as exception:
        raise _unknown(_error_of(exception)) from exception
    for tp in found:
        if tp.error is not None:
            raise _unknown(tp.error)
    return all(tp.offset >= wanted[(tp.topic, tp.partition)] for tp in found)


def _unknown(error: KafkaError) -> OutcomeUnknown:
    return OutcomeUnknown(f"committed offsets cannot be had: {error.str()}; restart the process")
