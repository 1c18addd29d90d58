"""The asyncio stream when its caller is cancelled. The log is scripted: records come when told."""

import asyncio
import queue
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from messages.answer_codec import encode_answer
from messages.digest import input_digest
from messages.reply import ReplyAddress
from producers.answer_log import AnswerLog
from producers.answer_stream import AnswerStream, StreamState
from producers.async_answer_stream import AsyncAnswerStream
from producers.errors import AnswersLost
from producers.ticket import Answer, Ticket
from tests.producers.answers import ask, at, result_for
from transport.records import Record


class ScriptedLog(AnswerLog):
    """Gives one answer for each call of `publish`, and blocks until then."""

    def __init__(self) -> None:
        self._records: queue.Queue[Record | AnswersLost] = queue.Queue()
        self._next = 0
        self.waits = False
        """Whether a reading has begun and not ended."""

    @property
    def positions(self) -> dict[int, int]:
        """As `AnswerLog`."""
        return {0: 0}

    def publish(self) -> None:
        """Let the next answer come: to the query at the answer's own offset."""
        ticket = Ticket(ask(f"text {self._next}"), input_digest("text", None))
        answer = result_for(ticket, at(self._next))
        message = encode_answer(answer, ReplyAddress(key=None, encoding="json"))
        record = Record("petstream.results", 0, self._next, None, message.value, message.headers, 0)
        self._records.put(record)
        self._next += 1

    def fail(self) -> None:
        """Let the next reading fail."""
        self._records.put(AnswersLost("deleted"))

    def read(self, timeout_s: float) -> list[Record]:
        """As `AnswerLog`, but ends only when told to."""
        self.waits = True
        record = self._records.get(timeout=30)
        self.waits = False
        if isinstance(record, AnswersLost):
            raise record
        return [record]

    def close(self) -> None:
        """Nothing to close."""


Scenario = Callable[[ScriptedLog, AsyncAnswerStream], Coroutine[Any, Any, None]]


def play(scenario: Scenario) -> None:
    """Run a scenario on an open stream."""

    async def run() -> None:
        log = ScriptedLog()
        async with AsyncAnswerStream(lambda: AnswerStream(log)) as stream:
            await scenario(log, stream)

    asyncio.run(run())


async def cancelled_while_waiting(log: ScriptedLog, stream: AsyncAnswerStream) -> None:
    """Ask for an answer, and cancel that once the log is being read."""
    task = asyncio.ensure_future(anext(stream))
    async with asyncio.timeout(30):
        while not log.waits:
            await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def offset_of(answer: Answer) -> int:
    """Where the query of an answer stands."""
    return answer.origin.offset


def next_offset(state: StreamState) -> int:
    """Where a reader that resumes begins."""
    return dict(state.positions)[0]


def test_an_answer_that_comes_after_its_caller_was_cancelled_goes_to_the_next() -> None:
    """In order, and none is lost."""

    async def scenario(log: ScriptedLog, stream: AsyncAnswerStream) -> None:
        await cancelled_while_waiting(log, stream)
        for _ in range(3):
            log.publish()

        assert [offset_of(await anext(stream)) for _ in range(3)] == [0, 1, 2]

    play(scenario)


def test_the_state_is_that_after_the_last_answer_given() -> None:
    """Not of one that was read for a caller who has gone."""

    async def scenario(log: ScriptedLog, stream: AsyncAnswerStream) -> None:
        log.publish()
        assert offset_of(await anext(stream)) == 0
        after_one = stream.state()
        await cancelled_while_waiting(log, stream)
        log.publish()
        async with asyncio.timeout(30):
            while log.waits:
                await asyncio.sleep(0)

        assert stream.state() == after_one
        assert next_offset(after_one) == 1
        assert offset_of(await anext(stream)) == 1
        assert next_offset(stream.state()) == 2

    play(scenario)


def test_a_failure_after_its_caller_was_cancelled_goes_to_the_next() -> None:
    """It is told once."""

    async def scenario(log: ScriptedLog, stream: AsyncAnswerStream) -> None:
        await cancelled_while_waiting(log, stream)
        log.fail()
        with pytest.raises(AnswersLost):
            await anext(stream)
        log.publish()

        assert offset_of(await anext(stream)) == 0

    play(scenario)


def test_closing_after_a_cancellation_waits_for_the_reading_and_raises_nothing() -> None:
    """What it fails with concerns nobody."""

    async def scenario(log: ScriptedLog, stream: AsyncAnswerStream) -> None:
        await cancelled_while_waiting(log, stream)
        log.fail()

    play(scenario)
