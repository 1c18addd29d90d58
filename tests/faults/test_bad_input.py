"""Everything that must be refused, through a real scheduler: answered, kept, and nobody harmed.

Each hostile record stands between two good queries in its partition. The list is that of the
codec's tests, which docs/messages.md documents line by line, and here what only a scheduler can
know is added: tasks, levels, deadlines.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from confluent_kafka import KafkaError, Message, Producer

from messages.answer_codec import decode_answer
from messages.errors import ErrorAnswer, Reason
from messages.headers import Headers
from messages.query import Query, QueryParameters
from messages.query_codec import IncomingQuery, encode_query
from messages.result import Result
from messages.topics import TopicNames
from producers.client import Client
from producers.connection import Connection
from producers.new_query import new_query
from tests.faults.checker import Answer, Evidence, Place, check
from tests.faults.deployment import PARTITIONS, SCHEDULER, SMALL_WORKER, Deployment
from tests.faults.engine_oracle import EngineOracle
from tests.faults.topic_dump import dump_topic
from tests.messages import hostile
from tests.messages.hostile import Hostile
from tests.transport.raw_producer import append_with_header
from transport.records import Record
from transport.settings import KafkaSettings
from transport.topics import create_topics

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

SERVED = "clinc150"
RETIRED = "sms_spam"
ONLY_SMALL = QueryParameters(level=0)
DRAIN_LIMIT_S = 120.0


def asked(**fields: object) -> bytes:
    """A good query for a task that is served, with other fields."""
    return hostile.packed(**({"task": SERVED} | fields))


SCHEDULERS_OWN = [
    Hostile(31, "unknown task", asked(task="no-such-task"), Reason.TASK_UNKNOWN),
    Hostile(31, "unknown revision", asked(task=f"{SERVED}@99"), Reason.TASK_UNKNOWN),
    Hostile(31, "unknown alias", asked(task=f"{SERVED}:nobody"), Reason.TASK_UNKNOWN),
    Hostile(
        31, "unknown task in a header", b"hi", Reason.TASK_UNKNOWN, (("task", b"no-such-task"),)
    ),
    Hostile(31, "retired task", asked(task=RETIRED), Reason.TASK_RETIRED),
    Hostile(34, "a text pair for one text", asked(text_pair="b"), Reason.TEXT_PAIR_UNEXPECTED),
    Hostile(38, "expired deadline", asked(expires_at_ms=1), Reason.DEADLINE_PAST),
    Hostile(
        38,
        "expired CloudEvent",
        json.dumps({"text": "what is my balance"}).encode(),
        Reason.DEADLINE_PAST,
        (
            ("content-type", b"application/json"),
            ("ce_specversion", b"1.0"),
            ("ce_id", b"A-1"),
            ("ce_source", b"urn:test"),
            ("ce_type", b"com.example.query"),
            ("ce_subject", SERVED.encode()),
            ("ce_expirytime", b"2020-01-01T00:00:00Z"),
        ),
    ),
    Hostile(45, "a level that is not", asked(parameters={"level": 5}), Reason.LEVEL_UNAVAILABLE),
]


ODD_HEADER = Hostile(50, "header name that is not UTF-8", asked(), Reason.BAD_HEADER, headers=())
"""The header itself is added by `write_all`: it is no `str`."""


@dataclass(frozen=True, slots=True)
class Placed:
    """Where the records of the run came to stand."""

    bad: dict[Place, Hostile]
    refused: list[Hostile]
    """Not taken by the broker."""
    good: list[Query]


@dataclass(frozen=True, slots=True)
class Run:
    """What one run left behind."""

    placed: Placed
    evidence: Evidence
    oracle: EngineOracle
    scheduler_restarts: int


class Writer:
    """Publishes to chosen partitions, one record at a time, with a plain producer."""

    def __init__(self, deployment: Deployment) -> None:
        self._topic = deployment.topics.queries
        # Above the topic's limit, so that it is the broker that refuses.
        config = deployment.kafka.query_producer() | {
            "message.max.bytes": 2_000_000,
            "linger.ms": 0,
        }
        self._producer = Producer(config)

    def write(
        self, value: bytes | None, key: bytes | None, headers: Headers, partition: int
    ) -> Place | KafkaError:
        """Publish a record; return where it stands, or why the broker refused it."""
        outcomes: list[Place | KafkaError] = []

        def on_delivery(error: KafkaError | None, record: Message) -> None:
            offset = record.offset()
            assert error is not None or offset is not None
            outcomes.append(error or (partition, offset or 0))

        self._producer.produce(
            self._topic,
            value=value,
            key=key,
            headers=list(headers),
            partition=partition,
            on_delivery=on_delivery,
        )
        while not outcomes:
            self._producer.poll(1.0)
        return outcomes[0]


def write_all(deployment: Deployment, texts: tuple[str, ...]) -> Placed:
    """Publish every hostile record between two good ones."""
    writer = Writer(deployment)
    bad: dict[Place, Hostile] = {}
    refused: list[Hostile] = []
    good: list[Query] = []
    numbered_texts = (f"{texts[number % len(texts)]} ({number})" for number in range(10**6))

    def write_good(partition: int) -> Place:
        query = new_query(SERVED, next(numbered_texts), parameters=ONLY_SMALL)
        message = encode_query(query)
        place = writer.write(message.value, query.id.encode(), message.headers, partition)
        assert not isinstance(place, KafkaError), place
        good.append(query)
        return place

    for number, record in enumerate(hostile.ALL + SCHEDULERS_OWN):
        partition = number % PARTITIONS
        write_good(partition)
        place = writer.write(record.value, record.key, record.headers, partition)
        if isinstance(place, KafkaError):
            assert place.code() == KafkaError.MSG_SIZE_TOO_LARGE, place
            refused.append(record)
        else:
            bad[place] = record
        write_good(partition)
    write_good(0)
    append_with_header(
        deployment.kafka,
        deployment.topics.queries,
        b"\xff\xfe",
        value=ODD_HEADER.value or b"",
        key=ODD_HEADER.key or b"",
    )
    _, next_offset = write_good(0)
    bad[0, next_offset - 1] = ODD_HEADER
    return Placed(bad, refused, good)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """One run with every hostile record."""
    folder = tmp_path_factory.mktemp("bad-input")
    with Deployment(folder, [SCHEDULER, SMALL_WORKER], retired=[RETIRED]) as deployment:
        kafka, topics = deployment.kafka, deployment.topics
        (served,) = (task for task in deployment.tasks if task.name == SERVED)
        answered = 0
        with Client(Connection(kafka, topics.namespace)) as client, client.results() as results:
            placed = write_all(deployment, served.texts)
            due = len(placed.bad) + len(placed.good)
            while answered < due and results.take(DRAIN_LIMIT_S) is not None:
                answered += 1
        (scheduler, _) = deployment.supervisor.statuses()
        deployment.tend()
        deployment.stop_services()
        evidence = Evidence(
            publications=[],
            queries=dump_topic(kafka, topics.queries),
            results=dump_topic(kafka, topics.results),
            dead_letters=dump_topic(kafka, topics.dead_letters),
        )
        oracle = EngineOracle(deployment.artifacts, deployment.settings.models_dir, placed.good)
        yield Run(placed, evidence, oracle, scheduler.restarts)


def test_every_record_is_answered_once_and_as_documented(run: Run) -> None:
    """Bad ones with their reason and in the dead letters, good ones with the engine's result."""

    def complaint(incoming: IncomingQuery | None, record: Record, answer: Answer) -> str | None:
        expected = run.placed.bad.get((record.partition, record.offset))
        if expected is None:
            return run.oracle.complaint(incoming, record, answer)
        if isinstance(answer, ErrorAnswer) and answer.reason is expected.reason:
            return None
        return f"{expected.name}: expected {expected.reason}, got {answer}"

    violations = check(run.evidence, complaint)

    assert not violations, "\n".join(str(violation) for violation in violations[:20])
    assert len(run.evidence.queries) == len(run.placed.bad) + len(run.placed.good)


def test_the_table_was_covered(run: Run) -> None:
    """At least 25 lines of it; what is missing was refused by the broker for its size."""
    rows = {record.row for record in run.placed.bad.values()}

    assert len(rows) >= 25
    assert {record.row for record in run.placed.refused} <= {52}


def test_good_neighbours_were_answered_by_the_small_level(run: Run) -> None:
    """Every one of them, with a result."""
    results = [
        answer
        for answer in (decode_answer(r.value, r.headers) for r in run.evidence.results)
        if isinstance(answer, Result)
    ]

    assert {answer.id for answer in results} == {query.id for query in run.placed.good}
    assert {answer.level for answer in results} == {0}


def test_the_scheduler_never_died(run: Run) -> None:
    """Refusing is not surviving a crash."""
    assert run.scheduler_restarts == 0


def test_no_answer_repeats_the_input(run: Run) -> None:
    """Messages go into logs and to other people's screens."""
    marks = [b"etc/passwd", b"__class__", b"no-such-task"]

    for record in run.evidence.results:
        answer = decode_answer(record.value, record.headers)
        if isinstance(answer, ErrorAnswer):
            assert len(answer.message) <= 200
            assert not any(mark in answer.message.encode() for mark in marks), answer


@pytest.mark.parametrize("codec", ["gzip", "lz4", "snappy", "zstd"])
def test_the_broker_refuses_what_inflates(broker: str, namespace: str, codec: str) -> None:
    """A small compressed batch of many zeros gets no further: consumers inflate without limit."""
    kafka = KafkaSettings(bootstrap_servers=broker)
    topics = TopicNames(namespace)
    create_topics(kafka, topics, partitions=1)
    errors: list[KafkaError | None] = []
    config = kafka.query_producer() | {"message.max.bytes": 10**7, "compression.type": codec}
    producer = Producer(config)

    producer.produce(
        topics.queries, value=bytes(5 * 10**6), on_delivery=lambda error, _: errors.append(error)
    )
    producer.flush(20)

    (error,) = errors
    assert error is not None
    assert error.code() == KafkaError.MSG_SIZE_TOO_LARGE
