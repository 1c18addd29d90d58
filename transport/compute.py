"""The compute threads: they run the stage beside the Kafka thread, each one unit at a time.

Daemon threads of our own rather than an executor: an executor's threads are joined at exit, so a
stage that hangs would keep a process alive that has already given up its partitions.
"""

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from time import monotonic
from typing import Protocol

from transport.records import OutgoingRecord, Record

Answer = Future[Sequence[OutgoingRecord]]


class Stage(Protocol):
    """Turns the records of one unit into the records to publish.

    Runs on a compute thread; where a pipeline has several, on all of them at once. Deterministic
    and free of side effects: after a crash or a rebalance the same records are processed again.
    Raising ends the process uncommitted, so bad input must be answered, not raised.
    """

    def process(self, records: Sequence[Record], /) -> Sequence[OutgoingRecord]:
        """Return everything that the unit publishes, in order."""
        ...


class ComputeThreads:
    """Begin submitted units in order of submission."""

    def __init__(self, stage: Stage, num_threads: int = 1) -> None:
        self._stage = stage
        self._jobs: SimpleQueue[tuple[Sequence[Record], Answer] | None] = SimpleQueue()
        self._finished = threading.Event()
        self._unit_s = 0.0
        self.threads = [
            threading.Thread(target=self._run, name=f"compute-{number}", daemon=True)
            for number in range(num_threads)
        ]
        for thread in self.threads:
            thread.start()

    @property
    def unit_s(self) -> float:
        """Smoothed duration of a unit in seconds; 0 before the first."""
        return self._unit_s

    def submit(self, records: Sequence[Record]) -> Answer:
        """Queue a unit; its answer can be cancelled as long as it has not begun."""
        answer: Answer = Future()
        self._jobs.put((records, answer))
        return answer

    def wait(self, timeout_s: float) -> None:
        """Wait until a unit finished since the last call, at most `timeout_s`."""
        self._finished.wait(timeout_s)
        self._finished.clear()

    def close(self) -> None:
        """Let each thread end after the units that were submitted."""
        for _ in self.threads:
            self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            records, answer = job
            if not answer.set_running_or_notify_cancel():
                continue
            started_s = monotonic()
            try:
                outgoing = self._stage.process(records)
            except BaseException as error:  # noqa: BLE001 - raised again on the Kafka thread
                answer.set_exception(error)
            else:
                self._note_duration(monotonic() - started_s)
                answer.set_result(outgoing)
            self._finished.set()

    def _note_duration(self, seconds: float) -> None:
        self._unit_s = seconds if self._unit_s == 0.0 else 0.8 * self._unit_s + 0.2 * seconds
