"""Every way that a transaction can end, without a broker: one case for each branch."""

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from tests.transport.pretended_kafka import PretendedKafka, fault
from transport.deadline import Deadline
from transport.errors import (
    AccessDenied,
    BrokerUnreachable,
    OutcomeUnknown,
    RecordTooLarge,
    SessionError,
    SessionFenced,
    TransactionAborted,
)
from transport.records import OutgoingRecord
from transport.settings import KafkaSettings
from transport.transactions import TransactionalPublisher

ABORT = fault(abort=True)
FATAL = fault(KafkaError.INVALID_TXN_STATE, fatal=True)
SILENCE = fault(KafkaError._TIMED_OUT, retriable=True)
FENCED = fault(KafkaError._FENCED, fatal=True)
DENIED = fault(KafkaError.TOPIC_AUTHORIZATION_FAILED, abort=True)

SETTLED, NOT_SETTLED = TopicPartition("in", 0, 7), TopicPartition("in", 0, 3)


class _Unanswered(TopicPartition):
    """A partition for which the group coordinator has an error in place of an offset."""

    error = KafkaError(KafkaError._TIMED_OUT)


class Bench:
    """A publisher on pretended clients, open, with answers to publish."""

    def __init__(self) -> None:
        self.kafka = PretendedKafka()
        self.publisher = TransactionalPublisher(
            KafkaSettings(bootstrap_servers="127.0.0.1:1"),
            "group.a",
            self.kafka.make_producer,
            self.kafka.clock,
        )
        self.publisher.open()
        self.kafka.calls.clear()

    def publish(self, num_records: int = 1) -> None:
        """Publish answers and settle everything before offset 7."""
        self.publisher.publish(
            [OutgoingRecord("out", b"answer")] * num_records,
            [TopicPartition("in", 0, 7)],
            self.kafka.consumer(),
        )

    def calls(self, *names: str) -> list[str]:
        """Return what the producers were asked, of these names only."""
        return [call for call in self.kafka.calls if call.split(".")[1] in names]


@pytest.fixture
def bench() -> Bench:
    """A publisher that is open."""
    return Bench()


def test_a_commit_that_is_answered_is_the_end(bench: Bench) -> None:
    """No second question, no new producer."""
    bench.publish()

    assert bench.kafka.calls == ["1.begin", "1.offsets", "1.commit"]


@pytest.mark.parametrize(
    "commits",
    [[SILENCE, ABORT], [SILENCE, SILENCE, ABORT], [SILENCE, DENIED], [SILENCE, FATAL]],
    ids=["abort", "abort after two", "denied", "fatal"],
)
@pytest.mark.parametrize("found", [SETTLED, NOT_SETTLED], ids=["happened", "did not happen"])
def test_a_commit_that_timed_out_is_never_aborted(
    bench: Bench, commits: list[KafkaException], found: TopicPartition
) -> None:
    """Whatever the next answer is: fenced by a new producer, then the coordinator is asked."""
    bench.kafka.faults["commit"].extend(commits)
    bench.kafka.committed = [found]

    if found is SETTLED:
        bench.publish()
    else:
        with pytest.raises((TransactionAborted, AccessDenied)):
            bench.publish()

    assert bench.calls("abort") == []
    assert bench.calls("init", "close") == ["2.init", "1.close"]


def test_a_commit_that_took_long_is_not_aborted_either(bench: Bench) -> None:
    """Within one call the client itself may have asked again."""
    bench.kafka.seconds["commit"] = 6.0
    bench.kafka.faults["commit"].append(ABORT)
    bench.kafka.committed = [SETTLED]

    bench.publish()

    assert bench.calls("abort", "init") == ["2.init"]


def test_a_commit_refused_at_once_is_aborted(bench: Bench) -> None:
    """The producer goes on."""
    bench.kafka.faults["commit"].append(ABORT)

    with pytest.raises(TransactionAborted):
        bench.publish()

    assert bench.calls("abort", "init") == ["1.abort"]


def test_a_slow_commit_replaces_the_producer(bench: Bench) -> None:
    """Retried inside the client, it may have left a request on its way."""
    bench.kafka.seconds["commit"] = 5.1

    bench.publish()

    assert bench.calls("commit", "init", "close") == ["1.commit", "2.init", "1.close"]


def test_a_fast_commit_does_not(bench: Bench) -> None:
    """A little less is the machine's."""
    bench.kafka.seconds["commit"] = 4.9

    bench.publish()

    assert bench.calls("init") == []


def test_silence_is_not_waited_out_for_ever(bench: Bench) -> None:
    """After two and a half transaction timeouts the restarted process learns the outcome."""
    bench.kafka.always["commit"] = SILENCE
    bench.kafka.seconds["commit"] = 10.0

    with pytest.raises(OutcomeUnknown, match=r"a commit of group\.a for 150 s"):
        bench.publish()

    assert len(bench.calls("commit")) == 16
    assert bench.calls("abort", "init", "close") == []
    with pytest.raises(SessionError, match="not open"):
        bench.publisher.serve()
    bench.publisher.close(Deadline(0.0))


@pytest.mark.parametrize("is_reported", [False, True], ids=["lost reports", "failed records"])
def test_a_commit_without_every_acknowledgement_is_told(bench: Bench, is_reported: bool) -> None:
    """A client that commits less than it was given is not believed (librdkafka 1.5.2 did it)."""
    bench.kafka.loses_reports = not is_reported
    bench.kafka.reports = KafkaError(KafkaError._MSG_TIMED_OUT) if is_reported else None

    with pytest.raises(OutcomeUnknown, match="0 of 3 records acknowledged"):
        bench.publish(3)


@pytest.mark.parametrize("found", [[_Unanswered("in", 0, 7)], [SETTLED, _Unanswered("in", 1)]])
def test_a_partition_that_is_not_answered_for_is_not_guessed(
    bench: Bench, found: list[TopicPartition]
) -> None:
    """To take an error for "not committed" would publish everything a second time."""
    bench.kafka.faults["commit"].append(FATAL)
    bench.kafka.committed = found

    with pytest.raises(OutcomeUnknown, match="committed offsets cannot be had"):
        bench.publish()


def test_a_coordinator_that_does_not_answer_is_not_guessed(bench: Bench) -> None:
    """The request itself may fail."""
    bench.kafka.faults["commit"].append(FATAL)
    bench.kafka.always["committed"] = fault(KafkaError._TIMED_OUT)

    with pytest.raises(OutcomeUnknown, match="committed offsets cannot be had"):
        bench.publish()


def test_a_fenced_commit_ends_the_session(bench: Bench) -> None:
    """Another process has the slot; a new producer would fence it in turn."""
    bench.kafka.faults["commit"].append(FENCED)

    with pytest.raises(SessionFenced):
        bench.publish()

    assert bench.calls("init", "abort") == []


def test_a_producer_fenced_by_its_own_timeout_asks(bench: Bench) -> None:
    """The coordinator raises the epoch of a transaction that it ends for taking too long."""
    bench.kafka.faults["commit"].append(FENCED)
    bench.kafka.seconds["commit"] = 61.0
    bench.kafka.committed = [NOT_SETTLED]

    with pytest.raises(TransactionAborted):
        bench.publish()

    assert bench.calls("init") == ["2.init"]


def test_an_abort_waits_for_the_first_report(bench: Bench) -> None:
    """Before it, the transaction's first request is under way (librdkafka issue 4849)."""
    bench.kafka.faults["offsets"].append(ABORT)
    bench.kafka.reports_after_polls = 4

    with pytest.raises(TransactionAborted):
        bench.publish()

    assert bench.calls("poll", "abort", "init") == ["1.poll"] * 4 + ["1.abort"]


def test_an_abort_does_not_wait_for_ever(bench: Bench) -> None:
    """A report that does not come in 5 s is given up."""
    bench.kafka.faults["offsets"].append(ABORT)
    bench.kafka.loses_reports = True

    with pytest.raises(TransactionAborted):
        bench.publish()

    assert 5.0 <= bench.kafka.now_s < 5.2
    assert bench.calls("abort") == ["1.abort"]


def test_an_abort_of_nothing_waits_for_nothing(bench: Bench) -> None:
    """Offsets alone have no reports."""
    bench.kafka.faults["offsets"].append(ABORT)

    with pytest.raises(TransactionAborted):
        bench.publish(0)

    assert bench.calls("poll", "abort") == ["1.abort"]


@pytest.mark.parametrize("failure", [FATAL, fault()], ids=["fatal", "not to be repeated"])
def test_an_abort_that_fails_replaces_the_producer(bench: Bench, failure: KafkaException) -> None:
    """Its transaction is ended by the new one's beginning."""
    bench.kafka.faults["offsets"].append(ABORT)
    bench.kafka.faults["abort"].append(failure)

    with pytest.raises(TransactionAborted):
        bench.publish()

    assert bench.calls("abort", "init", "close") == ["1.abort", "2.init", "1.close"]


def test_an_abort_is_repeated(bench: Bench) -> None:
    """As long as it may be."""
    bench.kafka.faults["offsets"].append(ABORT)
    bench.kafka.faults["abort"].extend([SILENCE, SILENCE])

    with pytest.raises(TransactionAborted):
        bench.publish()

    assert bench.calls("abort", "init") == ["1.abort"] * 3


def test_an_abort_that_is_never_answered_replaces_the_producer(bench: Bench) -> None:
    """After half a minute."""
    bench.kafka.faults["offsets"].append(ABORT)
    bench.kafka.always["abort"] = SILENCE
    bench.kafka.seconds["abort"] = 10.0

    with pytest.raises(TransactionAborted):
        bench.publish()

    assert bench.calls("abort", "init") == ["1.abort"] * 3 + ["2.init"]


def test_a_fatal_error_before_the_commit_is_not_aborted(bench: Bench) -> None:
    """A producer that failed for good is replaced."""
    bench.kafka.faults["offsets"].append(FATAL)

    with pytest.raises(TransactionAborted):
        bench.publish()

    assert bench.calls("abort", "init") == ["2.init"]


def test_offsets_are_sent_again_after_a_time_out(bench: Bench) -> None:
    """The group's coordinator may be moving."""
    bench.kafka.faults["offsets"].extend([SILENCE, SILENCE])

    bench.publish()

    assert bench.calls("offsets", "commit") == ["1.offsets"] * 3 + ["1.commit"]


def test_offsets_that_are_never_taken_are_an_abort(bench: Bench) -> None:
    """After half a minute; nothing was asked to be committed."""
    bench.kafka.always["offsets"] = SILENCE
    bench.kafka.seconds["offsets"] = 15.0

    with pytest.raises(TransactionAborted):
        bench.publish()

    assert bench.calls("commit", "abort") == ["1.abort"]


@pytest.mark.parametrize(
    ("failure", "error"),
    [(FENCED, SessionFenced), (DENIED, AccessDenied)],
    ids=["fenced", "denied"],
)
def test_what_no_repetition_heals_is_told(
    bench: Bench, failure: KafkaException, error: type[SessionError]
) -> None:
    """Found before the commit."""
    bench.kafka.faults["offsets"].append(failure)

    with pytest.raises(error):
        bench.publish()


@pytest.mark.parametrize("seconds", [0.0, 6.0], ids=["fast", "slow"])
def test_a_record_too_large_is_named_however_long_it_took(bench: Bench, seconds: float) -> None:
    """The broker's refusal is not taken for an abort that may be tried again."""
    bench.kafka.faults["offsets"].append(SILENCE)
    bench.kafka.seconds["offsets"] = seconds
    bench.kafka.reports = KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)
    bench.kafka.faults["commit"].append(ABORT)
    bench.kafka.committed = [NOT_SETTLED]

    with pytest.raises(RecordTooLarge):
        bench.publish()


def test_init_is_repeated_while_the_coordinator_loads(bench: Bench) -> None:
    """Right after a broker's start it asks to come again."""
    bench.kafka.faults["init"].extend([SILENCE, SILENCE])

    bench.publisher.open()

    assert bench.calls("init") == ["2.init"] * 3


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (SILENCE, BrokerUnreachable),
        (fault(), BrokerUnreachable),
        (fault(KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED), AccessDenied),
    ],
    ids=["silence", "not to be repeated", "denied"],
)
def test_a_producer_that_cannot_begin_is_told(
    bench: Bench, failure: KafkaException, error: type[Exception]
) -> None:
    """After a minute, or at once."""
    bench.kafka.always["init"] = failure
    bench.kafka.seconds["init"] = 2.0

    with pytest.raises(error):
        bench.publisher.open()

    assert bench.kafka.now_s <= 62.0
