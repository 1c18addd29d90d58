"""The client for asyncio programs: the same calls as `producers.client.Client`, awaited."""

import asyncio
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
)
from functools import partial
from typing import Self, TypeVar

from messages.origin import Origin
from messages.query import Query
from messages.result import Result
from producers.answer_stream import StreamState
from producers.async_answer_stream import AsyncAnswerStream
from producers.client import unwrap
from producers.connection import Connection
from producers.errors import AnswerTimeout, ClientBusy, ClientClosed, ClientError, PublishDoubtful
from producers.exchange import Exchange
from producers.publisher import PublisherFull
from producers.ticket import Ticket

T = TypeVar("T")

# How long to leave a full producer queue alone: about one batch at the default linger.
_FULL_QUEUE_PAUSE_S = 0.005


class AsyncClient:
    """Publishes queries and awaits their answers, without ever blocking the event loop.

    At most `max_in_flight` queries of one client are under way; further calls wait for room. To be
    used as an asynchronous context manager, from one event loop.
    """

    def __init__(
        self, connection: Connection | str, *, max_in_flight: int = 1_000, timeout_s: float = 30.0
    ) -> None:
        """Prepare; entering the context connects.

        Args:
            connection: Where to, or just the bootstrap servers.
            max_in_flight: Queries under way at once.
            timeout_s: How long calls wait that do not say it themselves.
        """
        if max_in_flight < 1:
            raise ValueError(f"expected max_in_flight >= 1, got {max_in_flight}")
        self._connection = Connection.of(connection)
        self._timeout_s = timeout_s
        self._max_in_flight = max_in_flight
        self._slots = asyncio.BoundedSemaphore(max_in_flight)
        self._opened: Exchange | None = None

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            ConnectionFailed: If no broker answers or the namespace has no topics.
        """
        self._opened = await asyncio.to_thread(Exchange, self._connection)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def publish(
        self, query: Query, *, key: bytes | None = None, timeout_s: float | None = None
    ) -> Origin:
        """As `Client.publish`."""
        wait_s = self._timeout_s if timeout_s is None else timeout_s
        ticket: Ticket | None = None
        try:
            async with asyncio.timeout(wait_s), self._slots:
                ticket = await self._submit(query, key, wants_answer=False)
                return await asyncio.wrap_future(ticket.published)
        except TimeoutError:
            if ticket is None:
                raise ClientBusy(f"{self._max_in_flight} queries are under way") from None
            raise PublishDoubtful(f"query {query.id} was not acknowledged in time") from None

    async def ask(
        self, query: Query, *, key: bytes | None = None, timeout_s: float | None = None
    ) -> Result:
        """As `Client.ask`."""
        wait_s = self._timeout_s if timeout_s is None else timeout_s
        ticket: Ticket | None = None
        try:
            async with asyncio.timeout(wait_s), self._slots:
                ticket = await self._submit(query, key, wants_answer=True)
                return unwrap(await asyncio.wrap_future(ticket.answered))
        except TimeoutError:
            if ticket is None:
                raise ClientBusy(f"{self._max_in_flight} queries are under way") from None
            raise AnswerTimeout(query.id, ticket.origin) from None
        finally:
            if ticket is not None:
                self._exchange.give_up(ticket)

    def ask_many(
        self, queries: Iterable[Query] | AsyncIterable[Query], *, timeout_s: float | None = None
    ) -> AsyncGenerator[Result | ClientError, None]:
        """As `Client.ask_many`."""
        return self._in_order(queries, lambda query: self.ask(query, timeout_s=timeout_s))

    def publish_many(
        self, queries: Iterable[Query] | AsyncIterable[Query], *, timeout_s: float | None = None
    ) -> AsyncGenerator[Origin | ClientError, None]:
        """As `Client.publish_many`."""
        return self._in_order(queries, lambda query: self.publish(query, timeout_s=timeout_s))

    def results(
        self,
        *,
        from_beginning: bool = False,
        idle_timeout_s: float | None = None,
        resume: StreamState | None = None,
    ) -> AsyncAnswerStream:
        """As `Client.results`; to be used as an asynchronous context manager."""
        return AsyncAnswerStream(
            partial(self._exchange.open_stream, from_beginning=from_beginning, resume=resume),
            idle_timeout_s=idle_timeout_s,
        )

    async def close(self, timeout_s: float = 10.0) -> None:
        """As `Client.close`."""
        if self._opened is not None:
            await asyncio.to_thread(self._opened.close, timeout_s)

    @property
    def _exchange(self) -> Exchange:
        if self._opened is None:
            raise ClientClosed("the client is not connected: enter it with `async with`")
        return self._opened

    async def _in_order(
        self,
        queries: Iterable[Query] | AsyncIterable[Query],
        settle: Callable[[Query], Awaitable[T]],
    ) -> AsyncGenerator[T | ClientError, None]:
        async def outcome(query: Query) -> T | ClientError:
            try:
                return await settle(query)
            except ClientError as error:
                return error

        under_way: deque[asyncio.Task[T | ClientError]] = deque()
        try:
            async for query in _each(queries):
                if len(under_way) >= self._max_in_flight:
                    yield await under_way.popleft()
                under_way.append(asyncio.create_task(outcome(query)))
                while under_way and under_way[0].done():
                    yield await under_way.popleft()
            while under_way:
                yield await under_way.popleft()
        finally:
            for task in under_way:
                task.cancel()

    async def _submit(self, query: Query, key: bytes | None, *, wants_answer: bool) -> Ticket:
        if wants_answer and not self._exchange.is_reading:
            # Asks the broker for positions, which must not happen on the event loop.
            await asyncio.to_thread(self._exchange.start_reading)
        while True:
            try:
                return self._exchange.submit(query, key=key, wants_answer=wants_answer)
            except PublisherFull:
                await asyncio.sleep(_FULL_QUEUE_PAUSE_S)


async def _each(queries: Iterable[Query] | AsyncIterable[Query]) -> AsyncIterator[Query]:
    if isinstance(queries, AsyncIterable):
        async for query in queries:
            yield query
    else:
        for query in queries:
            yield query
