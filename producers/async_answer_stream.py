"""All answers of a namespace, each once, for asyncio programs."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Self

from producers.answer_stream import AnswerStream, StreamState
from producers.ticket import Answer

_WAIT_S = 0.5


class AsyncAnswerStream(AsyncIterator[Answer]):
    """As `AnswerStream`, which it lets read on one thread of its own.

    Answers are taken on the event loop, in the step that gives them to the caller: a caller that
    is cancelled while it waits loses none, and `state` never speaks of one that was not given.
    """

    def __init__(
        self, open_stream: Callable[[], AnswerStream], *, idle_timeout_s: float | None = None
    ) -> None:
        """Prepare; entering the context opens the stream.

        Args:
            open_stream: Called on the reading thread, since it may ask the broker.
            idle_timeout_s: The iteration ends when no record came for so long; None: never.
        """
        self._open_stream = open_stream
        self._idle_timeout_s = idle_timeout_s
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="petstream-results")
        self._stream: AnswerStream | None = None
        self._reading: asyncio.Future[bool] | None = None

    async def __anext__(self) -> Answer:
        stream = self._opened
        while True:
            answer = stream.take_buffered()
            if answer is not None:
                return answer
            if not await self._read(stream) and self._idle_timeout_s is not None:
                raise StopAsyncIteration

    async def _read(self, stream: AnswerStream) -> bool:
        """Wait for the reading that is under way, or begin one."""
        if self._reading is None:
            wait_s = _WAIT_S if self._idle_timeout_s is None else self._idle_timeout_s
            loop = asyncio.get_running_loop()
            self._reading = loop.run_in_executor(self._thread, stream.fill, wait_s)
        # Unlike awaiting it, waiting for it leaves it alone when the caller is cancelled.
        await asyncio.wait([self._reading])
        reading, self._reading = self._reading, None
        return reading.result()

    def state(self) -> StreamState:
        """As `AnswerStream.state`."""
        return self._opened.state()

    @property
    def _opened(self) -> AnswerStream:
        if self._stream is None:
            raise RuntimeError("the stream is not open: enter it with `async with`")
        return self._stream

    async def close(self) -> None:
        """Leave the broker."""
        stream, self._stream = self._stream, None
        reading, self._reading = self._reading, None
        if reading is not None:
            # What it fails with, nobody waits for any more.
            await asyncio.gather(reading, return_exceptions=True)
        if stream is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, stream.close)
        self._thread.shutdown(wait=False)

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._stream = await loop.run_in_executor(self._thread, self._open_stream)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
