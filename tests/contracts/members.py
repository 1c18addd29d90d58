"""Members of a group, run by the tests: a pipeline on its own thread, and small stages."""

import threading
import time
from collections.abc import Callable, Collection, Sequence
from types import TracebackType
from typing import Self

from tests.contracts.backends import Backend, BeforeCommit
from transport.compute import Stage
from transport.deadline import Deadline
from transport.intake import IntakeLimits
from transport.pipeline import PipelineLimits, run_pipeline
from transport.port import AssignmentListener, SessionPort
from transport.records import Claim, OutgoingRecord, Partition, Record
from transport.window import CountWindow, Window

LIMIT_S = 240.0
"""Long enough for a rebalance on a busy machine; only a failing test waits so long."""


def eventually(condition: Callable[[], bool], what: str, *, every_s: float = 0.01) -> None:
    """Wait until a condition holds.

    Args:
        condition: What must come to hold.
        what: For people.
        every_s: How often to look; seldom where looking takes much of the machine.

    Raises:
        AssertionError: If it does not within the limit.
    """
    deadline = Deadline(LIMIT_S)
    while not condition():
        assert not deadline.has_passed, f"not within {LIMIT_S:.0f} s: {what}"
        time.sleep(every_s)


class EchoStage:
    """Answers every record with its value, the member's name in front."""

    def __init__(self, name: str, topic: str) -> None:
        self.name = name
        self.topic = topic
        self.partition: int | None = None
        self.num_processed = 0
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def process(self, records: Sequence[Record], /) -> Sequence[OutgoingRecord]:
        """Wait for the gate, then echo."""
        self.entered.set()
        assert self.gate.wait(LIMIT_S), "the test never opened the gate"
        self.num_processed += len(records)
        return [
            OutgoingRecord(
                self.topic, f"{self.name}:{_text(record)}".encode(), partition=self.partition
            )
            for record in records
        ]


class Deaf:
    """A listener for tests that look at the session alone."""

    def drain(self, partitions: object, /) -> None:
        """Hear nothing."""

    def forget(self, partitions: object, /) -> None:
        """Hear nothing."""


class _WatchedListener:
    """Tells when a drain begins, which may wait for what the test does next."""

    def __init__(self, listener: AssignmentListener) -> None:
        self._inner = listener
        self.drain_began = threading.Event()

    def drain(self, partitions: Collection[Partition], /) -> None:
        """Tell, and drain."""
        self.drain_began.set()
        self._inner.drain(partitions)

    def forget(self, partitions: Collection[Partition], /) -> None:
        """Forget."""
        self._inner.forget(partitions)


class WatchedSession:
    """Counts what passes through a session."""

    def __init__(self, session: SessionPort) -> None:
        self.inner = session
        self.num_delivered = 0
        self.num_polls_paused = 0
        self._is_paused = False
        self.num_pauses = 0
        self.num_resumes = 0
        self.num_publishes = 0
        self._listener: _WatchedListener | None = None

    @property
    def is_draining(self) -> bool:
        """Whether partitions were about to leave."""
        return self._listener is not None and self._listener.drain_began.is_set()

    def open(self, listener: AssignmentListener, /) -> None:
        """Open."""
        self._listener = _WatchedListener(listener)
        self.inner.open(self._listener)

    def poll(self, max_records: int, timeout_s: float, /) -> list[Record]:
        """Poll and count."""
        records = self.inner.poll(max_records, timeout_s)
        self.num_polls_paused += self._is_paused
        self.num_delivered += len(records)
        return records

    def pause(self) -> None:
        """Pause and count."""
        self.num_pauses += 1
        self._is_paused = True
        self.inner.pause()

    def resume(self) -> None:
        """Resume and count."""
        self.num_resumes += 1
        self._is_paused = False
        self.inner.resume()

    def epoch(self, partition: Partition, /) -> int | None:
        """Ask for the epoch."""
        return self.inner.epoch(partition)

    def publish(self, outgoing: Sequence[OutgoingRecord], claims: Sequence[Claim], /) -> None:
        """Publish and count."""
        self.inner.publish(outgoing, claims)
        self.num_publishes += 1

    def close(self, deadline: Deadline, /) -> None:
        """Close."""
        self.inner.close(deadline)


class Member:
    """A pipeline from `in` to `out` on a thread of its own. As a context manager it is stopped."""

    def __init__(
        self,
        backend: Backend,
        name: str,
        *,
        window: Window | None = None,
        stage: Stage | None = None,
        before_commit: BeforeCommit = lambda: None,
        revoke_drain_s: float = 2.0,
        intake: IntakeLimits | None = None,
        may_take: Callable[[], bool] = lambda: True,
    ) -> None:
        self.stage = EchoStage(name, backend.name("out"))
        self.session = WatchedSession(backend.session("group", ["in"], name, before_commit))
        self.stop = threading.Event()
        self.error: BaseException | None = None
        self._window = window or CountWindow(10)
        self._stage = stage or self.stage
        self._may_take = may_take
        self._limits = PipelineLimits(
            revoke_drain_s=revoke_drain_s,
            stop_drain_s=LIMIT_S,
            intake=intake or IntakeLimits(),
        )
        self._thread = threading.Thread(target=self._run, name=name)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.stage.gate.set()
        self.stop.set()
        self.join()

    def join(self) -> None:
        """Wait for the end of the pipeline."""
        self._thread.join(LIMIT_S)
        assert not self._thread.is_alive(), "the pipeline did not end"

    def _run(self) -> None:
        try:
            run_pipeline(
                self.session,
                self._window,
                self._stage,
                stop=self.stop,
                may_take=self._may_take,
                limits=self._limits,
            )
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.error = error


def _text(record: Record) -> str:
    return (record.value or b"").decode()
