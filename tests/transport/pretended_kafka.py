"""A producer, a consumer and a clock with no broker behind them, and a script of their answers.

For what no broker can be made to do: to stay silent for minutes, to lose reports, to be slow.
"""

from collections import defaultdict, deque
from collections.abc import Callable
from typing import cast

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from transport.settings import KafkaSettings

OnDelivery = Callable[[KafkaError | None, Message], None]


def fault(
    code: int = KafkaError._FAIL,
    *,
    retriable: bool = False,
    abort: bool = False,
    fatal: bool = False,
) -> KafkaException:
    """Return an error as librdkafka raises it."""
    error = KafkaError(code, "scripted", retriable=retriable, txn_requires_abort=abort, fatal=fatal)
    return KafkaException(error)


class PretendedKafka:
    """All clients of one test; what they are asked is noted, what they answer is scripted.

    Calls succeed at once, unless a fault or a duration is scripted for them.
    """

    def __init__(self) -> None:
        self.now_s = 0.0
        self.calls: list[str] = []
        """`<number of the producer>.<call>`."""
        self.faults: defaultdict[str, deque[KafkaException]] = defaultdict(deque)
        """What the next calls of a name raise, one each."""
        self.always: dict[str, KafkaException] = {}
        """What every call of a name raises."""
        self.seconds: dict[str, float] = {}
        """How long each call of a name takes."""
        self.reports_after_polls = 0
        self.reports: KafkaError | None = None
        """What delivery reports say: None is success."""
        self.loses_reports = False
        self.committed: list[TopicPartition] = []
        """What the group coordinator answers."""
        self.num_producers = 0

    def clock(self) -> float:
        """Return the pretended time."""
        return self.now_s

    def make_producer(self, _settings: KafkaSettings, _transactional_id: str) -> Producer:
        """Return the next producer."""
        self.num_producers += 1
        return cast("Producer", _PretendedProducer(self, self.num_producers))

    def consumer(self) -> Consumer:
        """Return the group's member."""
        return cast("Consumer", _PretendedConsumer(self))

    def asked(self, call: str) -> None:
        """Let time pass, then raise what is scripted.

        Raises:
            KafkaException: If it is.
        """
        self.now_s += self.seconds.get(call, 0.0)
        if self.faults[call]:
            raise self.faults[call].popleft()
        if call in self.always:
            raise self.always[call]


class _PretendedProducer:
    def __init__(self, kafka: PretendedKafka, number: int) -> None:
        self._kafka = kafka
        self._number = number
        self._unreported: list[OnDelivery] = []
        self._num_polls = 0

    def init_transactions(self, _timeout_s: float) -> None:
        """Fence."""
        self._note("init")

    def begin_transaction(self) -> None:
        """Begin."""
        self._note("begin")

    def produce(self, _topic: str, *positional: object, headers: object) -> None:
        """Keep the callback."""
        self._unreported.append(cast("OnDelivery", positional[-1]))

    def send_offsets_to_transaction(self, *_arguments: object) -> None:
        """Take the offsets."""
        self._note("offsets")

    def poll(self, timeout_s: float) -> None:
        """Report, once it is time to."""
        self._note("poll")
        self._kafka.now_s += timeout_s
        self._num_polls += 1
        if self._num_polls >= self._kafka.reports_after_polls:
            self._report()

    def commit_transaction(self) -> None:
        """Report and commit."""
        self._report()
        self._note("commit")

    def abort_transaction(self) -> None:
        """Abort."""
        self._note("abort")

    def close(self) -> None:
        """Free the client."""
        self._note("close")

    def _note(self, call: str) -> None:
        self._kafka.calls.append(f"{self._number}.{call}")
        self._kafka.asked(call)

    def _report(self) -> None:
        callbacks, self._unreported = self._unreported, []
        if not self._kafka.loses_reports:
            for on_delivery in callbacks:
                on_delivery(self._kafka.reports, Message(topic="out", value=b"answer"))


class _PretendedConsumer:
    def __init__(self, kafka: PretendedKafka) -> None:
        self._kafka = kafka

    def consumer_group_metadata(self) -> object:
        """Return what nobody looks at."""
        return object()

    def committed(
        self, _partitions: list[TopicPartition], *, timeout: float
    ) -> list[TopicPartition]:
        """Answer for the group coordinator."""
        self._kafka.asked("committed")
        return self._kafka.committed
