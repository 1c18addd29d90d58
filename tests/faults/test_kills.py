"""Processes and broker die at random moments of a run; the answers must not show it.

The moments are drawn by a seed as numbers of answered queries, so every death comes while
queries are under way, however fast the machine is.
"""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest

from messages.answer_codec import decode_answer, encode_answer
from messages.query import Query
from messages.reply import ReplyAddress
from messages.result import Result
from producers.client import Client
from producers.connection import Connection
from producers.new_query import new_query
from producers.ticket import Ticket
from tests.faults.checker import Evidence, Invariant, check
from tests.faults.deployment import (
    LARGE_WORKER,
    PARTITIONS,
    SCHEDULER,
    SMALL_WORKER,
    Deployment,
    ExampleTask,
)
from tests.faults.engine_oracle import EngineOracle
from tests.faults.ledger import Ledger, read_ledger
from tests.faults.topic_dump import dump_topic
from tests.faults.traffic import LiveReader, Sender
from transport.deadline import Deadline
from transport.groups import scheduler_group, worker_group
from transport.records import Record

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

SEED = 20_26
NUM_QUERIES = 3_000
VICTIMS = 4 * [SCHEDULER.name, SMALL_WORKER.name, LARGE_WORKER.name]
BROKER_DIES_WITH = (4, 9)
"""Numbers of the deaths that the broker's own death goes before."""
IN_FLIGHT = 300
RUN_LIMIT_S = 900.0


@dataclass(frozen=True, slots=True)
class Run:
    """What one run left behind."""

    queries: list[Query]
    tickets: list[Ticket]
    evidence: Evidence
    oracle: EngineOracle
    restarts: dict[str, int]
    unsettled: list[str]
    """Where a group has not settled everything."""
    seen_live: list[tuple[int, int]]


def make_queries(tasks: list[ExampleTask], count: int, rng: random.Random) -> list[Query]:
    """Real texts of all tasks, each made unique, so that no answer passes for another's."""
    queries = []
    for number in range(count):
        task = rng.choice(tasks)
        queries.append(new_query(task.name, f"{rng.choice(task.texts)} ({number})"))
    return queries


def do_harm(deployment: Deployment, sender: Sender, rng: random.Random) -> None:
    """Kill every victim once for each time that it is named, and the broker twice."""
    victims = list(VICTIMS)
    rng.shuffle(victims)
    moments = sorted(rng.sample(range(NUM_QUERIES // 50, NUM_QUERIES - IN_FLIGHT), len(victims)))
    for number, (moment, victim) in enumerate(zip(moments, victims, strict=True)):
        deadline = Deadline(RUN_LIMIT_S)
        while sender.num_settled < moment:
            deployment.tend()
            assert not deadline.has_passed, f"no progress after {sender.num_settled} answers"
            time.sleep(0.01)
        if number in BROKER_DIES_WITH:
            deployment.kill_broker(down_s=rng.uniform(0.5, 2.0))
        deployment.kill(victim)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """One run under fire, its logs, and what the engine says to its queries."""
    folder = tmp_path_factory.mktemp("kills")
    rng = random.Random(SEED)
    with Deployment(folder, [SCHEDULER, SMALL_WORKER, LARGE_WORKER]) as deployment:
        kafka, topics = deployment.kafka, deployment.topics
        queries = make_queries(deployment.tasks, NUM_QUERIES, rng)
        connection = Connection(kafka, topics.namespace)
        with (
            Client(connection, max_in_flight=IN_FLIGHT, timeout_s=RUN_LIMIT_S) as client,
            LiveReader(kafka, topics, PARTITIONS) as reader,
            Ledger(folder / "ledger.jsonl") as ledger,
        ):
            sender = Sender(client, queries, ledger)
            do_harm(deployment, sender, rng)
            deadline = Deadline(RUN_LIMIT_S)
            while sender.num_settled < NUM_QUERIES and not deadline.has_passed:
                deployment.tend()
                time.sleep(0.05)
            sender.join(5.0)
            restarts = {s.name: s.restarts for s in deployment.supervisor.statuses()}
            deployment.stop_services()
        evidence = Evidence(
            publications=read_ledger((folder / "ledger.jsonl").read_text().splitlines()),
            queries=dump_topic(kafka, topics.queries),
            results=dump_topic(kafka, topics.results),
            dead_letters=dump_topic(kafka, topics.dead_letters),
            seen_live=set(reader.seen),
        )
        namespace = topics.namespace
        unsettled = [
            *deployment.unsettled(scheduler_group(namespace), topics.queries),
            *deployment.unsettled(scheduler_group(namespace), topics.escalations),
            *deployment.unsettled(worker_group(namespace, 0), topics.batches(0)),
            *deployment.unsettled(worker_group(namespace, 1), topics.batches(1)),
        ]
        oracle = EngineOracle(deployment.artifacts, deployment.settings.models_dir, queries)
        yield Run(queries, sender.tickets, evidence, oracle, restarts, unsettled, reader.seen)


def test_every_query_has_one_answer_and_it_is_the_engines(run: Run) -> None:
    """The ledger, the logs and the oracle agree on all of them."""
    violations = check(run.evidence, run.oracle.complaint)

    assert not violations, "\n".join(str(violation) for violation in violations[:10])
    assert len(run.evidence.publications) == len(run.evidence.results) == NUM_QUERIES


def test_the_harm_was_done(run: Run) -> None:
    """A run in which nobody died would prove nothing."""
    assert sum(run.restarts.values()) >= len(VICTIMS)
    assert all(count >= VICTIMS.count(name) for name, count in run.restarts.items())


def test_both_levels_answered(run: Run) -> None:
    """So all hops were under fire, escalations too."""
    answers = [decode_answer(record.value, record.headers) for record in run.evidence.results]
    levels = Counter(answer.level for answer in answers if isinstance(answer, Result))

    assert set(levels) == {0, 1}


def test_the_client_gave_every_caller_the_answer_of_the_log(run: Run) -> None:
    """Over broker and service deaths, without a second try by the caller."""
    log = {
        (answer.origin.partition, answer.origin.offset): answer
        for answer in (decode_answer(r.value, r.headers) for r in run.evidence.results)
    }

    assert len(run.tickets) == NUM_QUERIES
    for ticket in run.tickets:
        origin = ticket.published.result(0)
        assert ticket.answered.result(0) == log[origin.partition, origin.offset]


def test_a_reader_sees_each_record_once(run: Run) -> None:
    """Its positions survive the broker's deaths."""
    assert len(run.seen_live) == len(set(run.seen_live))


def test_everything_is_settled_in_the_end(run: Run) -> None:
    """No input is left that a restart would work on again."""
    assert run.unsettled == []


def altered(record: Record, **changes: object) -> Record:
    """The record with another answer in it."""
    answer = replace(decode_answer(record.value, record.headers), **changes)  # type: ignore[arg-type]
    encoding = "json" if dict(record.headers)["content-type"] == b"application/json" else "msgpack"
    message = encode_answer(answer, ReplyAddress(record.key, encoding))  # type: ignore[arg-type]
    return replace(record, value=message.value, headers=message.headers)


def said(answer: Result) -> dict[str, object]:
    """What the answer says of its text."""
    return {"labels": answer.labels, "scores": answer.scores, "tags": answer.tags}


def two_unlike(results: list[Record]) -> tuple[int, int]:
    """Indices of two answers of one task with different labels or tags."""
    first = decode_answer(results[0].value, results[0].headers)
    assert isinstance(first, Result)
    for index, record in enumerate(results):
        answer = decode_answer(record.value, record.headers)
        assert isinstance(answer, Result)
        if answer.task == first.task and (answer.labels, answer.tags) != (first.labels, first.tags):
            return 0, index
    raise AssertionError("all answers are alike")


def swap(results: list[Record]) -> list[Record]:
    """Two answers of one task exchange what they say."""
    one, other = two_unlike(results)
    says = [decode_answer(results[index].value, results[index].headers) for index in (one, other)]
    assert isinstance(says[0], Result)
    assert isinstance(says[1], Result)
    swapped = list(results)
    swapped[one] = altered(results[one], **said(says[1]))
    swapped[other] = altered(results[other], **said(says[0]))
    return swapped


@pytest.mark.parametrize(
    ("spoil", "invariant"),
    [
        (lambda results: results[:-1], Invariant.NO_LOSS),
        (lambda results: [*results, replace(results[7], offset=10**6)], Invariant.NO_DUPLICATE),
        (swap, Invariant.RIGHT_ANSWER),
        (
            lambda results: [altered(results[0], input_digest=bytes(8)), *results[1:]],
            Invariant.RIGHT_DIGEST,
        ),
    ],
    ids=["drop one", "duplicate one", "swap two", "alter one"],
)
def test_the_same_run_spoilt_in_one_place_is_refused(
    run: Run, spoil: Callable[[list[Record]], list[Record]], invariant: Invariant
) -> None:
    """The check that the run passed can fail on this very run."""
    spoilt = replace(run.evidence, results=spoil(list(run.evidence.results)), seen_live=None)

    violations = check(spoilt, run.oracle.complaint)

    assert invariant in {violation.invariant for violation in violations}
    assert len(violations) <= 2
