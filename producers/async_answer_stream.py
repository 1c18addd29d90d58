"""All answers of a namespace, each once, for asyncio programs."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Self

from producers.answer_stream import AnswerStream, StreamState
from producers.exchange import Exchange
from producers.ticket import Answer

_WAIT_S = 0.5


class AsyncAnswerStream(AsyncIterator[Answer]):
    """As `AnswerStream`, which it keeps on one thread of its own."""

    def __init__(
        self,
        exchange: Exchange,
        *,
        from_beginning: bool,
        idle_timeout_s: float | None,
        resume: StreamState | None,
    ) -> None:
        self._exchange = exchange
        self._from_beginning = from_beginning
        self._idle_timeout_s = idle_timeout_s
        self._resume = resume
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="petstream-results")
        self._stream: AnswerStream | None = None

    async def __anext__(self) -> Answer:
        stream = self._opened
        loop = asyncio.get_running_loop()
        wait_s = _WAIT_S if self._idle_timeout_s is None else self._idle_timeout_s
        while True:
            # Shielded: an answer that is being taken when the caller is cancelled would be lost.
            answer = await loop.run_in_executor(self._thread, stream.take, wait_s)
            if answer is not None:
                return answer
            if self._idle_timeout_s is not None:
                raise StopAsyncIteration

    def state(self) -> StreamState:
        """As `AnswerStream.state`; not to be called while an answer is awaited."""
        return self._opened.state()

    @property
    def _opened(self) -> AnswerStream:
        if self._stream is None:
            raise RuntimeError("the stream is not open: enter it with `async with`")
        return self._stream

    async def close(self) -> None:
        """Leave the broker."""
        stream, self._stream = self._stream, None
        if stream is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, stream.close)
        self._thread.shutdown(wait=False)

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._stream = await loop.run_in_executor(
            self._thread,
            lambda: self._exchange.open_stream(
                from_beginning=self._from_beginning, resume=self._resume
            ),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
