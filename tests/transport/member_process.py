"""A member of a group as a process of its own, to be killed: echoes `in` to `out`.

python -m tests.transport.member_process BOOTSTRAP NAMESPACE SLOT UNIT_MS DELIVERY [KILL_AT]

KILL_AT is the number of the transaction in which it kills itself, between everything written and
the commit.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Sequence

from confluent_kafka import Producer

from transport.pipeline import run_pipeline
from transport.publisher import Publisher
from transport.records import OutgoingRecord, Record
from transport.session import Session
from transport.settings import KafkaSettings
from transport.transactions import TransactionalPublisher
from transport.window import CountWindow


class SlowEcho:
    """Echoes, the slot in front, after as long as a model would take."""

    def __init__(self, topic: str, slot: str, unit_s: float) -> None:
        self._topic = topic
        self._slot = slot
        self._unit_s = unit_s

    def process(self, records: Sequence[Record], /) -> Sequence[OutgoingRecord]:
        """Work, then echo."""
        time.sleep(self._unit_s)
        values = ((record.value or b"").decode() for record in records)
        return [OutgoingRecord(self._topic, f"{self._slot}:{value}".encode()) for value in values]


class SuicidalProducer(Producer):
    """Kills its process in place of one of its commits."""

    num_commits = 0

    def __init__(self, settings: KafkaSettings, transactional_id: str, kill_at: int) -> None:
        super().__init__(settings.transactional_producer(transactional_id))
        self._kill_at = kill_at

    def commit_transaction(self, *args: float) -> None:
        """Commit, or die with everything flushed to the broker."""
        SuicidalProducer.num_commits += 1
        if SuicidalProducer.num_commits == self._kill_at:
            self.flush(10)
            os.kill(os.getpid(), signal.SIGKILL)
        super().commit_transaction(*args)


def main(arguments: Sequence[str]) -> None:
    """Run until SIGTERM."""
    bootstrap_servers, namespace, slot, unit_ms, delivery, *kill_at = arguments
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda _signal, _frame: stop.set())
    settings = KafkaSettings.model_validate(
        {"bootstrap_servers": bootstrap_servers, "delivery": delivery}
    )
    group = f"{namespace}.group"
    publisher: Publisher | None = None
    if kill_at:
        publisher = TransactionalPublisher(
            settings,
            f"{group}.{slot}",
            lambda settings, name: SuicidalProducer(settings, name, int(kill_at[0])),
        )
    session = Session(
        settings, group=group, topics=[f"{namespace}.in"], slot=slot, publisher=publisher
    )
    stage = SlowEcho(f"{namespace}.out", slot, float(unit_ms) / 1000)
    run_pipeline(session, CountWindow(20), stage, stop=stop)


if __name__ == "__main__":
    main(sys.argv[1:])
