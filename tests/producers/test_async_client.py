"""What only the asyncio client can do wrong: block the loop, leak on cancellation."""

import asyncio

import pytest

from messages.result import Result
from producers.async_client import AsyncClient
from producers.connection import Connection
from producers.errors import ClientClosed, ConnectionFailed
from producers.new_query import new_query
from tests.producers.stand_in import StandIn, echo, silent
from transport.settings import KafkaSettings

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


def test_connecting_does_not_block_the_event_loop() -> None:
    """While it waits two seconds for a broker that is not there, others go on."""

    async def run() -> int:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        ticker = asyncio.create_task(tick())
        nobody = Connection(KafkaSettings(bootstrap_servers="127.0.0.1:9"), timeout_s=2.0)
        with pytest.raises(ConnectionFailed):
            await AsyncClient(nobody).__aenter__()
        ticker.cancel()
        return ticks

    # A loop that is blocked ticks once.
    assert asyncio.run(run()) > 20


def test_a_cancelled_question_frees_its_room(broker: str, connection: Connection) -> None:
    """As often as one likes."""

    async def run(stand_in: StandIn) -> Result:
        async with AsyncClient(connection, max_in_flight=2) as client:
            stand_in.behaviour = silent
            for _ in range(6):
                question = asyncio.create_task(client.ask(new_query("t", "never")))
                await asyncio.sleep(0.05)
                question.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await question
            stand_in.behaviour = echo
            return await client.ask(new_query("t", "now"))

    with StandIn(broker, connection.namespace) as stand_in:
        assert asyncio.run(run(stand_in)).labels == ("now",)


def test_many_awaited_at_once(broker: str, connection: Connection) -> None:
    """A hundred tasks on one client."""

    async def run() -> list[Result]:
        async with AsyncClient(connection, max_in_flight=30) as client:
            return await asyncio.gather(*(client.ask(new_query("t", str(n))) for n in range(100)))

    with StandIn(broker, connection.namespace):
        results = asyncio.run(run())

    assert [result.labels for result in results] == [(str(n),) for n in range(100)]


def test_closing_ends_those_who_wait(broker: str, connection: Connection) -> None:
    """With an error that says so, not with a time-out."""

    async def run(stand_in: StandIn) -> None:
        async with AsyncClient(connection) as client:
            question = asyncio.create_task(client.ask(new_query("t", "never")))
            while not stand_in.queries:
                await asyncio.sleep(0.01)
        with pytest.raises(ClientClosed):
            await question

    with StandIn(broker, connection.namespace, silent) as stand_in:
        asyncio.run(run(stand_in))


def test_a_client_outside_its_context_says_so(connection: Connection) -> None:
    """It is not connected yet."""
    with pytest.raises(ClientClosed, match="async with"):
        asyncio.run(AsyncClient(connection).ask(new_query("t", "text")))
