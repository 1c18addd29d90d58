"""All answers of a namespace, each once, from a place that the reader may store and return to."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Self

from messages.answer_codec import decode_answer
from messages.errors import MessageError
from producers.answer_log import AnswerLog
from producers.dedupe import Interval, OriginDedupe, SourcePartition
from producers.errors import AnswerUnreadable
from producers.ticket import Answer


@dataclass(frozen=True, slots=True)
class StreamState:
    """What an application stores beside the effects of the answers it has taken.

    A stream that is opened with it gives the answers that were not taken, and none twice.
    """

    positions: tuple[tuple[int, int], ...]
    """(partition of the results topic, next offset)."""
    seen: tuple[tuple[SourcePartition, tuple[Interval, ...]], ...]
    """The origins taken so far."""


class _Read(NamedTuple):
    partition: int
    offset: int
    answer: Answer | AnswerUnreadable


class AnswerStream(Iterator[Answer]):
    """Iterates over answers as they are published; to be used from one thread.

    A second answer to one origin is left out, whatever the reason for it. A record that cannot be
    decoded raises `AnswerUnreadable` once; the next call goes on behind it.
    """

    def __init__(
        self,
        log: AnswerLog,
        *,
        idle_timeout_s: float | None = None,
        resume: StreamState | None = None,
    ) -> None:
        """Read `log`.

        Args:
            log: Where to read; closed with this stream.
            idle_timeout_s: The iteration ends when no record came for so long; None: never.
            resume: State of an earlier stream.
        """
        self._log = log
        self._idle_timeout_s = idle_timeout_s
        self._dedupe = OriginDedupe(resume.seen if resume else ())
        self._positions = log.positions
        self._buffer: deque[_Read] = deque()

    def take(self, timeout_s: float) -> Answer | None:
        """Return the next answer, or None if none came within `timeout_s` of the last record.

        Raises:
            AnswerUnreadable: If the next record is no answer.
            AnswersLost: If answers were deleted before they were read.
            ConnectionFailed: If the broker refuses for good.
        """
        while True:
            answer = self.take_buffered()
            if answer is not None:
                return answer
            if not self.fill(timeout_s):
                return None

    def take_buffered(self) -> Answer | None:
        """Return the next answer of those that `fill` has read, or None if there is none.

        Raises:
            AnswerUnreadable: If the next record is no answer.
        """
        while self._buffer:
            partition, offset, answer = self._buffer.popleft()
            self._positions[partition] = offset + 1
            if isinstance(answer, AnswerUnreadable):
                raise answer
            if self._dedupe.add(answer.origin):
                return answer
        return None

    def fill(self, timeout_s: float) -> bool:
        """Read records without taking them; tell whether one came within `timeout_s`.

        The only call that may run on another thread beside `take_buffered` and `state`.

        Raises:
            AnswersLost: If answers were deleted before they were read.
            ConnectionFailed: If the broker refuses for good.
        """
        records = self._log.read(timeout_s)
        for record in records:
            answer: Answer | AnswerUnreadable
            try:
                answer = decode_answer(record.value, record.headers)
            except MessageError as error:
                answer = AnswerUnreadable(f"{record.source}/{record.offset}: {error}")
            self._buffer.append(_Read(record.partition, record.offset, answer))
        return bool(records)

    def __next__(self) -> Answer:
        wait_s = 1.0 if self._idle_timeout_s is None else self._idle_timeout_s
        while True:
            answer = self.take(wait_s)
            if answer is not None:
                return answer
            if self._idle_timeout_s is not None:
                raise StopIteration

    def state(self) -> StreamState:
        """Where this stream stands, after the last answer that it gave."""
        return StreamState(tuple(sorted(self._positions.items())), self._dedupe.snapshot())

    def close(self) -> None:
        """Leave the broker."""
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
