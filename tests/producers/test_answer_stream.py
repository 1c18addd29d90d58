"""Reading results on a real broker: resuming, partitions that come, records that go."""

from collections.abc import Iterator
from itertools import islice

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import NewPartitions  # type: ignore[attr-defined]

from messages.query import Query
from messages.topics import TopicNames
from producers.answer_log import AnswerLog
from producers.answer_stream import AnswerStream
from producers.client import Client
from producers.connection import Connection
from producers.errors import AnswersLost, AnswerUnreadable
from producers.new_query import new_query
from producers.ticket import Answer
from tests.producers.stand_in import StandIn, twice
from transport.admin import admin_client

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


@pytest.fixture
def service(broker: str, connection: Connection) -> Iterator[StandIn]:
    """A service that answers everything twice."""
    with StandIn(broker, connection.namespace, twice) as stand_in:
        yield stand_in


def queries(count: int) -> list[Query]:
    """Queries with their number as text."""
    return [new_query("t", str(number)) for number in range(count)]


def test_a_resumed_stream_gives_the_rest_and_nothing_twice(
    connection: Connection, service: StandIn
) -> None:
    """Stopped after every 7 answers, anywhere between the two answers to one query."""
    asked = queries(40)
    taken: list[Answer] = []
    state = None
    with Client(connection) as client:
        assert len(list(client.ask_many(asked))) == 40

        while True:
            with client.results(resume=state, from_beginning=True, idle_timeout_s=5.0) as stream:
                part = list(islice(stream, 7))
                state = stream.state()
            taken += part
            if len(part) < 7:
                break

    assert sorted(answer.id for answer in taken) == sorted(query.id for query in asked)


def test_an_unreadable_record_is_told_once_and_passed(
    connection: Connection, service: StandIn
) -> None:
    """The reader can go on behind it."""
    with Client(connection) as client, client.results(idle_timeout_s=5.0) as stream:
        service.publish_raw(b"\xc1", b"key", [])
        with pytest.raises(AnswerUnreadable, match="results/"):
            next(stream)
        client.ask(new_query("t", "behind it"))

        assert len(list(stream)) == 1


def test_partitions_that_are_added_are_read_from_their_beginning(
    connection: Connection, service: StandIn
) -> None:
    """Answers there are missed neither before nor after the addition is noticed."""
    topic = TopicNames(connection.namespace).results
    admin = admin_client(connection.kafka)
    log = AnswerLog(connection.kafka.reader(), topic, {0: 0, 1: 0, 2: 0}, partitions_every_s=0.1)
    with AnswerStream(log, idle_timeout_s=8.0) as stream:
        admin.create_partitions([NewPartitions(topic, 6)])[topic].result(10)
        with Client(connection) as client:
            origins = [client.publish(query) for query in queries(60)]

        answers = list(stream)

    assert len(answers) == len(origins)
    assert {partition for partition, _ in stream.state().positions} == set(range(6))


def test_answers_deleted_before_they_were_read_are_reported(
    connection: Connection, service: StandIn
) -> None:
    """Never skipped in silence."""
    topic = TopicNames(connection.namespace).results
    with Client(connection) as client:
        list(client.ask_many(queries(40)))
        with client.results(from_beginning=True) as stream:
            next(stream)
            state = stream.state()
        admin = admin_client(connection.kafka)
        deleted = admin.delete_records([TopicPartition(topic, p, -1) for p in range(3)])
        for future in deleted.values():
            future.result(10)

        with (
            client.results(resume=state, idle_timeout_s=10.0) as stream,
            pytest.raises(AnswersLost, match="deleted"),
        ):
            list(stream)
