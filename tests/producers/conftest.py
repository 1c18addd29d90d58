"""A namespace with topics on the real broker, and both clients under one face."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from typing import Any, Protocol, TypeVar

import pytest

from messages.origin import Origin
from messages.query import Query
from messages.result import Result
from messages.topics import TopicNames
from producers.async_client import AsyncClient
from producers.client import Client
from producers.connection import Connection
from producers.errors import ClientError
from producers.ticket import Answer
from transport.settings import KafkaSettings
from transport.topics import create_topics

T = TypeVar("T")


class AnyClient(Protocol):
    """What both clients can do, as blocking calls."""

    def publish(self, query: Query, *, timeout_s: float | None = None) -> Origin: ...  # noqa: D102
    def ask(self, query: Query, *, timeout_s: float | None = None) -> Result: ...  # noqa: D102
    def ask_many(  # noqa: D102
        self, queries: Iterable[Query], *, timeout_s: float | None = None
    ) -> Iterator[Result | ClientError]: ...
    def publish_many(self, queries: Iterable[Query]) -> Iterator[Origin | ClientError]: ...  # noqa: D102
    def all_results(self, *, from_beginning: bool = False) -> list[Answer]:
        """Every answer until none came for five seconds."""
        ...

    def close(self) -> None: ...  # noqa: D102


class BlockingAsyncClient:
    """Drives an `AsyncClient` from outside its event loop."""

    def __init__(self, connection: Connection, **options: Any) -> None:  # noqa: ANN401
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._client = self._run(self._open(connection, options))

    async def _open(self, connection: Connection, options: dict[str, Any]) -> AsyncClient:
        # Made on the loop: an asyncio semaphore belongs to the loop that first waits on it.
        return await AsyncClient(connection, **options).__aenter__()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def publish(self, query: Query, *, timeout_s: float | None = None) -> Origin:
        """As the client."""
        return self._run(self._client.publish(query, timeout_s=timeout_s))

    def ask(self, query: Query, *, timeout_s: float | None = None) -> Result:
        """As the client."""
        return self._run(self._client.ask(query, timeout_s=timeout_s))

    def ask_many(
        self, queries: Iterable[Query], *, timeout_s: float | None = None
    ) -> Iterator[Result | ClientError]:
        """As the client."""
        return self._each(self._client.ask_many(queries, timeout_s=timeout_s))

    def publish_many(self, queries: Iterable[Query]) -> Iterator[Origin | ClientError]:
        """As the client."""
        return self._each(self._client.publish_many(queries))

    def _each(self, outcomes: AsyncIterator[T]) -> Iterator[T]:
        while True:
            try:
                yield self._run(anext_of(outcomes))
            except StopAsyncIteration:
                return

    def all_results(self, *, from_beginning: bool = False) -> list[Answer]:
        """As `AnyClient`."""

        async def collect() -> list[Answer]:
            stream = self._client.results(from_beginning=from_beginning, idle_timeout_s=5.0)
            async with stream:
                return [answer async for answer in stream]

        return self._run(collect())

    def close(self) -> None:
        """Close the client and end its event loop."""
        self._run(self._client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def anext_of(iterator: AsyncIterator[T]) -> T:
    """`anext` as the coroutine that `run_coroutine_threadsafe` wants."""
    return await anext(iterator)


class BlockingClient(Client):
    """The sync client with the one call more."""

    def all_results(self, *, from_beginning: bool = False) -> list[Answer]:
        """As `AnyClient`."""
        with self.results(from_beginning=from_beginning, idle_timeout_s=5.0) as stream:
            return list(stream)


OpenClient = Callable[..., AnyClient]


@pytest.fixture
def connection(broker: str, namespace: str) -> Connection:
    """A namespace of its own, with three partitions per topic."""
    settings = KafkaSettings(bootstrap_servers=broker)
    create_topics(settings, TopicNames(namespace), partitions=3)
    return Connection(settings, namespace)


@pytest.fixture(params=[BlockingClient, BlockingAsyncClient], ids=["sync", "asyncio"])
def open_client(request: pytest.FixtureRequest, connection: Connection) -> Iterator[OpenClient]:
    """Opens clients of either kind, and closes them after the test."""
    opened: list[AnyClient] = []

    def open_one(**options: object) -> AnyClient:
        client: AnyClient = request.param(connection, **options)
        opened.append(client)
        return client

    yield open_one
    for client in opened:
        client.close()
