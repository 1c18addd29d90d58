"""librdkafka's producer with a script of what befalls each commit."""

from collections import deque
from collections.abc import Iterable
from typing import Literal

from confluent_kafka import KafkaError, KafkaException, Producer

from transport.settings import KafkaSettings

Fate = Literal["commit", "answer lost", "refused for good", "timed out", "abort"]


class ScriptedProducers:
    """Makes producers whose commits meet the fates of one script, in order."""

    def __init__(self, fates: Iterable[Fate]) -> None:
        self.fates = deque(fates)

    def __call__(self, settings: KafkaSettings, transactional_id: str) -> Producer:
        """Make one producer."""
        return _ScriptedProducer(settings, transactional_id, self.fates)


class _ScriptedProducer(Producer):
    def __init__(self, settings: KafkaSettings, transactional_id: str, fates: deque[Fate]) -> None:
        super().__init__(settings.transactional_producer(transactional_id) | {"log_level": 2})
        self._fates = fates

    def commit_transaction(self, *args: float) -> None:
        """Let the next fate befall this commit; without one it succeeds."""
        fate = self._fates.popleft() if self._fates else "commit"
        if fate == "commit":
            super().commit_transaction(*args)
        elif fate == "answer lost":
            super().commit_transaction(*args)
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "answer lost", fatal=True))
        elif fate == "refused for good":
            raise KafkaException(KafkaError(KafkaError.INVALID_TXN_STATE, fate, fatal=True))
        elif fate == "timed out":
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, fate, retriable=True))
        elif fate == "abort":
            raise KafkaException(KafkaError(KafkaError._FAIL, fate, txn_requires_abort=True))
