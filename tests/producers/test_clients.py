"""Both clients on a real broker, with a stand-in for the service behind it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from messages.errors import ErrorAnswer, Reason
from messages.origin import Origin
from messages.query import Query, QueryParameters
from messages.query_codec import IncomingQuery
from messages.result import Result
from producers.client import Client
from producers.connection import Connection
from producers.errors import (
    AnswerMismatch,
    AnswerTimeout,
    AnswerUnreadable,
    ClientBusy,
    ConnectionFailed,
    DeadlinePast,
    PublishRejected,
    QueryInvalid,
    ServiceFailed,
    ServiceUnavailable,
    TaskError,
    TaskNotFound,
)
from producers.new_query import new_query
from producers.ticket import Answer
from tests.producers.conftest import OpenClient
from tests.producers.stand_in import Behaviour, StandIn, echo, silent, twice, wait_until
from transport.settings import KafkaSettings

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


@pytest.fixture
def service(broker: str, connection: Connection) -> Iterator[StandIn]:
    """A service that answers with the text as the label."""
    with StandIn(broker, connection.namespace) as stand_in:
        yield stand_in


def refuse(reason: Reason) -> Behaviour:
    """A service that answers every query with one error."""

    def answer(incoming: IncomingQuery, origin: Origin) -> list[Result | ErrorAnswer]:
        query = incoming.query
        return [ErrorAnswer(query.id, query.task, origin, reason, "because", "validate")]

    return answer


def label(outcome: object) -> str:
    """The text that was answered to."""
    assert isinstance(outcome, Result), outcome
    return outcome.labels[0]


def test_a_question_gets_its_own_answer(open_client: OpenClient, service: StandIn) -> None:
    """Text, pair, parameters and deadline arrive; the answer names the origin of the query."""
    query = new_query(
        "banking77@3",
        "Where is my card?",
        "It is late.",
        parameters=QueryParameters(level=1, top_k=2),
        ttl_ms=9_000,
    )

    result = open_client().ask(query)

    assert label(result) == "Where is my card?"
    assert result.id == query.id
    assert [incoming.query for incoming in service.queries] == [query]
    assert service.queries[0].reply.key == query.id.encode()


def test_publishing_returns_where_the_query_stands(
    open_client: OpenClient, service: StandIn, connection: Connection
) -> None:
    """Topic, its id, partition and offset; offsets of one partition follow each other."""
    client = open_client()

    origins = [client.publish(new_query("t", f"text {n}")) for n in range(12)]

    assert len(set(origins)) == 12
    assert {origin.topic for origin in origins} == {f"{connection.namespace}.queries"}
    assert {len(origin.topic_id) for origin in origins} == {22}
    for partition in {origin.partition for origin in origins}:
        offsets = [origin.offset for origin in origins if origin.partition == partition]
        assert offsets == list(range(len(offsets)))


def test_many_are_published_in_their_order(open_client: OpenClient, service: StandIn) -> None:
    """Origins, and the error of a query that is none, stand in the places of their queries."""
    texts = ["first", " ", "second", *(str(n) for n in range(60))]

    outcomes = list(open_client(max_in_flight=8).publish_many(new_query("t", t) for t in texts))

    wait_until(lambda: len(service.queries) == len(texts) - 1)
    assert isinstance(outcomes.pop(1), PublishRejected)
    texts.pop(1)
    stored = {
        place: incoming.query.text
        for place, incoming in zip(service.places, service.queries, strict=True)
    }
    assert [stored[key(origin)] for origin in outcomes if isinstance(origin, Origin)] == texts


def test_many_questions_are_answered_in_their_order(
    open_client: OpenClient, service: StandIn
) -> None:
    """More questions than may be under way at once, over three partitions."""
    client = open_client(max_in_flight=16)

    outcomes = client.ask_many(new_query("t", f"text {n}") for n in range(200))

    assert [label(outcome) for outcome in outcomes] == [f"text {n}" for n in range(200)]


def test_questions_are_drawn_only_as_room_comes_free(
    open_client: OpenClient, service: StandIn
) -> None:
    """Backpressure: an endless iterable is read no further than the answers allow."""
    service.behaviour = silent
    drawn = 0

    def endless() -> Iterator[Query]:
        nonlocal drawn
        while True:
            drawn += 1
            yield new_query("t", "text")

    outcomes = open_client(max_in_flight=8).ask_many(endless(), timeout_s=3.0)
    first = next(iter(outcomes))

    assert isinstance(first, AnswerTimeout)
    assert drawn <= 9


def test_what_is_wrong_with_one_question_costs_none_of_the_others(
    open_client: OpenClient, service: StandIn
) -> None:
    """An error stands in the place of its answer."""

    def refuse_odd(incoming: IncomingQuery, origin: Origin) -> list[Result | ErrorAnswer]:
        is_odd = int(incoming.query.text) % 2
        return list((refuse(Reason.TASK_UNKNOWN) if is_odd else echo)(incoming, origin))

    service.behaviour = refuse_odd
    texts = ["0", "1", "  ", "2", "3"]

    outcomes = list(open_client().ask_many(new_query("t", text) for text in texts))

    kinds = [type(outcome) for outcome in outcomes]
    assert kinds == [Result, TaskNotFound, PublishRejected, Result, TaskNotFound]


@pytest.mark.parametrize(
    ("reason", "error", "retryable"),
    [
        (Reason.EMPTY_TEXT, QueryInvalid, False),
        (Reason.TASK_UNKNOWN, TaskNotFound, False),
        (Reason.DEADLINE_PAST, DeadlinePast, True),
        (Reason.TASK_UNAVAILABLE, ServiceUnavailable, True),
        (Reason.MODEL_FAILED, ServiceFailed, False),
    ],
)
def test_error_answers_raise_their_type(
    open_client: OpenClient,
    service: StandIn,
    reason: Reason,
    error: type[TaskError],
    retryable: bool,
) -> None:
    """The type says what the caller can do, the reason says why."""
    service.behaviour = refuse(reason)

    with pytest.raises(error) as raised:
        open_client().ask(new_query("t", "text"))

    assert raised.value.reason is reason
    assert raised.value.retryable is retryable


def test_no_answer_in_time_says_where_the_query_stands(
    open_client: OpenClient, service: StandIn
) -> None:
    """The query is not lost; the error names its origin."""
    service.behaviour = silent

    with pytest.raises(AnswerTimeout, match="published at") as raised:
        open_client().ask(new_query("t", "text"), timeout_s=5.0)

    assert raised.value.origin is not None


def test_a_late_answer_does_not_disturb_the_next_question(
    open_client: OpenClient, service: StandIn
) -> None:
    """Given up is given up; the place is free again."""
    late: list[tuple[IncomingQuery, Origin]] = []

    def answer_one_late(incoming: IncomingQuery, origin: Origin) -> list[Result | ErrorAnswer]:
        late.append((incoming, origin))
        return [answer for waiting in late[1:] for answer in echo(*waiting)]

    service.behaviour = answer_one_late
    client = open_client(max_in_flight=1)

    with pytest.raises(AnswerTimeout):
        client.ask(new_query("t", "first", query_id="same"), timeout_s=3.0)

    assert label(client.ask(new_query("t", "second", query_id="same"))) == "second"


def test_an_answer_to_another_text_is_refused(open_client: OpenClient, service: StandIn) -> None:
    """Answers that the service swapped are told by their digest."""

    def swap(incoming: IncomingQuery, origin: Origin) -> list[Result | ErrorAnswer]:
        (answer,) = echo(incoming, origin)
        return [replace(answer, input_digest=bytes(8))]

    service.behaviour = swap

    with pytest.raises(AnswerMismatch):
        open_client().ask(new_query("t", "text"))


def test_an_answer_that_cannot_be_read_fails_at_once(
    open_client: OpenClient, service: StandIn
) -> None:
    """It is not waited for until the time is over."""

    def write_rubbish(incoming: IncomingQuery, _: Origin) -> list[Result | ErrorAnswer]:
        headers = [("petstream-id", incoming.query.id.encode())]
        service.publish_raw(b"\xc1", None, headers)
        return []

    service.behaviour = write_rubbish

    with pytest.raises(AnswerUnreadable):
        open_client().ask(new_query("t", "text"), timeout_s=60)


def test_an_invalid_query_is_refused_before_it_is_sent(
    open_client: OpenClient, service: StandIn
) -> None:
    """The same checks as the scheduler's, one round trip earlier."""
    client = open_client()

    for text in ["", " ", "x" * 300_000]:
        with pytest.raises(PublishRejected):
            client.publish(new_query("t", text))
    with pytest.raises(PublishRejected):
        client.ask(new_query("../../etc/passwd", "text"))

    assert label(client.ask(new_query("t", "text"))) == "text"
    assert len(service.queries) == 1


def test_more_callers_than_room_are_told_so(open_client: OpenClient, service: StandIn) -> None:
    """A client whose room is taken for too long says that nothing was sent."""
    service.behaviour = silent
    client = open_client(max_in_flight=1)
    outcomes = client.ask_many([new_query("t", "holds the room")], timeout_s=120.0)

    with ThreadPoolExecutor(1) as pool:
        holder = pool.submit(next, outcomes)
        wait_until(lambda: len(service.queries) == 1)
        with pytest.raises(ClientBusy):
            client.ask(new_query("t", "has none"), timeout_s=0.3)
        service.answer(0)
        assert isinstance(holder.result(), Result)

    assert "has none" not in [incoming.query.text for incoming in service.queries]


def test_clients_that_share_a_results_topic_get_only_their_own(
    open_client: OpenClient, service: StandIn
) -> None:
    """The same ids on both, under way at the same time."""
    clients = [open_client() for _ in range(2)]

    runs = [
        client.ask_many([new_query("t", f"{c}/{n}", query_id=f"id-{n}") for n in range(50)])
        for c, client in enumerate(clients)
    ]
    outcomes = list(zip(*runs, strict=True))

    assert [[label(o) for o in pair] for pair in outcomes] == [
        [f"0/{n}", f"1/{n}"] for n in range(50)
    ]


def test_results_gives_every_answer_once_though_published_twice(
    open_client: OpenClient, service: StandIn
) -> None:
    """De-duplicated by origin; queries of one id are different queries."""
    service.behaviour = twice
    client = open_client()

    origins = [client.publish(new_query("t", "text", query_id="same")) for _ in range(30)]

    answers = client.all_results()
    assert sorted(key(answer.origin) for answer in answers) == sorted(map(key, origins))


def test_results_begins_where_the_client_connected_or_at_the_beginning(
    open_client: OpenClient, service: StandIn
) -> None:
    """What was published through a client is never missed; what is older only on demand."""
    before = open_client()
    label(before.ask(new_query("t", "before")))

    after = open_client()
    after.ask(new_query("t", "after"))

    assert texts(after.all_results()) == ["after"]
    assert texts(after.all_results(from_beginning=True)) == ["after", "before"]


def test_json_queries_are_answered_in_json(
    broker: str, connection: Connection, service: StandIn
) -> None:
    """The encoding is the caller's."""
    with Client(replace(connection, encoding="json")) as client:
        assert label(client.ask(new_query("t", "text"))) == "text"

    assert service.queries[0].reply.encoding == "json"


def test_no_broker_and_no_topics_are_told_apart(broker: str, namespace: str) -> None:
    """Either way one line that says what to do."""
    with pytest.raises(ConnectionFailed, match="petstream topics create"):
        Client(Connection(KafkaSettings(bootstrap_servers=broker), namespace))
    with pytest.raises(ConnectionFailed, match="KAFKA_BOOTSTRAP_SERVERS"):
        Client(Connection(KafkaSettings(bootstrap_servers="127.0.0.1:9"), timeout_s=1.0))


def key(origin: Origin) -> tuple[int, int]:
    """Partition and offset: all that differs within one topic."""
    return origin.partition, origin.offset


def texts(answers: list[Answer]) -> list[str]:
    """The texts that were answered, sorted: partitions are read in any order."""
    return sorted(label(answer) for answer in answers)
