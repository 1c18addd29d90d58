"""The whole scheduler process on a real Apache Kafka."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import cast

import pytest
from confluent_kafka import Consumer, Producer

from messages.answer_codec import decode_answer
from messages.batch_codec import decode_batch
from messages.query import NO_PARAMETERS, Query, QueryParameters
from messages.query_codec import encode_query
from messages.task_event import TaskEvent
from messages.task_event_codec import encode_task_event
from messages.topics import TopicNames
from scheduler.service import SchedulerSettings, run_scheduler
from scheduler.window import WindowLimits
from tests.scheduler.stages import TASKS, revision
from transport.backlog import Backlog
from transport.errors import TopicConfigError
from transport.groups import worker_group
from transport.records import Headers
from transport.settings import KafkaSettings
from transport.topics import create_topics

pytestmark = pytest.mark.kafka

LIMIT_S = 60.0


class _Deployment:
    """A namespace of the real broker with a scheduler in a thread of this process."""

    def __init__(self, bootstrap_servers: str, namespace: str, models_dir: Path) -> None:
        self.kafka = KafkaSettings(bootstrap_servers=bootstrap_servers)
        self.topics = TopicNames(namespace)
        self._models_dir = models_dir
        self._producer = Producer(self.kafka.query_producer())
        self._reader = Consumer(self.kafka.reader(group=f"{namespace}.test", start="earliest"))
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self.settled: Counter[str] = Counter()
        """Rows and answers seen, by query id."""
        self.refused: set[str] = set()

    def start(self, max_outstanding_batches: int = 64) -> None:
        self._max_outstanding_batches = max_outstanding_batches
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(LIMIT_S)
            assert not self._thread.is_alive()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        self.stop()
        self._reader.close()

    def register(self, event: TaskEvent) -> None:
        message = encode_task_event(event)
        self._producer.produce(
            self.topics.tasks, message.value, event.name, headers=list(message.headers)
        )
        self._producer.flush(LIMIT_S)

    def ask(self, ids: list[str], task: str, parameters: QueryParameters = NO_PARAMETERS) -> None:
        for query_id in ids:
            message = encode_query(Query(query_id, task, "hello world", None, parameters))
            self._producer.produce(
                self.topics.queries, message.value, query_id, headers=list(message.headers)
            )
        self._producer.flush(LIMIT_S)

    def subscribe(self) -> None:
        self._reader.subscribe(
            [self.topics.batches(0), self.topics.batches(1), self.topics.results]
        )

    def read_until(self, is_enough: Callable[[Counter[str]], bool]) -> None:
        limit = time.monotonic() + LIMIT_S
        while not is_enough(self.settled):
            assert self._error is None, self._error
            assert time.monotonic() < limit, f"settled only {self.settled}"
            for message in self._reader.consume(100, 0.1):
                assert message.error() is None
                if message.topic() == self.topics.results:
                    headers = cast("Headers", message.headers() or ())
                    answer = decode_answer(message.value(), headers)
                    self.settled[answer.id] += 1
                    self.refused.add(answer.id)
                else:
                    rows = decode_batch(message.value()).rows
                    self.settled.update(row.query_id for row in rows)

    def _run(self) -> None:
        try:
            run_scheduler(
                kafka=self.kafka,
                topics=self.topics,
                models_dir=self._models_dir,
                slot="test",
                settings=SchedulerSettings(
                    window=WindowLimits(max_rows=50),
                    max_outstanding_batches=self._max_outstanding_batches,
                ),
                health_file=None,
                stop=self._stop,
            )
        except BaseException as error:  # noqa: BLE001 - raised again by stop()
            self._error = error


@pytest.fixture
def deployment(broker: str, namespace: str, models_dir: Path) -> Iterator[_Deployment]:
    """Topics and tasks, nothing running yet."""
    deployment = _Deployment(broker, namespace, models_dir)
    create_topics(deployment.kafka, deployment.topics, partitions=4)
    for event in TASKS:
        deployment.register(event)
    deployment.subscribe()
    yield deployment
    deployment.close()


def test_queries_become_rows_once_over_a_restart_and_a_registration(
    deployment: _Deployment,
) -> None:
    """Queries that were waiting, a task added while serving, a stop that drains, a new start."""
    waiting = [f"w{number}" for number in range(150)]
    deployment.ask(waiting, "banking77")
    deployment.ask(["unknown"], "nobody")

    deployment.start()
    deployment.read_until(lambda settled: len(settled) == 151)
    deployment.register(TaskEvent("brand-new", False, (revision("brand-new"),)))
    asked = _ask_until_known(deployment, "brand-new")
    deployment.ask([f"s{number}" for number in range(60)], "snips")
    deployment.stop()
    deployment.ask(["late"], "snips")
    deployment.start()
    deployment.read_until(lambda settled: len(settled) == 212 + asked)

    assert set(deployment.settled.values()) == {1}
    assert len(deployment.refused) == asked  # "unknown", and the new task's but the last


def test_a_large_pool_that_is_gone_does_not_hold_up_the_small_one(
    deployment: _Deployment,
) -> None:
    """Far more than may be outstanding waits for level 1; queries of level 0 become batches."""
    backlog = Backlog(
        deployment.kafka,
        {worker_group(deployment.topics.namespace, 1): deployment.topics.batches(1)},
    )
    backlog.start()
    deployment.start(max_outstanding_batches=4)
    for number in range(8):
        deployment.ask([f"large{number}"], "banking77", QueryParameters(level=1))
        deployment.read_until(partial(_holds, f"large{number}"))
    limit = time.monotonic() + LIMIT_S
    while (backlog.outstanding(worker_group(deployment.topics.namespace, 1)) or 0) < 8:
        assert time.monotonic() < limit
        time.sleep(0.05)
    backlog.close()

    deployment.ask(["small"], "banking77")
    deployment.read_until(partial(_holds, "small"))

    assert deployment.refused == set()


def _holds(query_id: str, settled: Counter[str]) -> bool:
    return query_id in settled


def _ask_until_known(deployment: _Deployment, task: str) -> int:
    """Ask for a task just registered until it is known; return how often that took."""
    for number in range(1000):
        query_id = f"n{number}"
        deployment.ask([query_id], task)
        deployment.read_until(partial(_holds, query_id))
        if query_id not in deployment.refused:
            return number + 1
    raise AssertionError(f"{task} never became known")


def test_it_refuses_to_start_without_its_topics(
    broker: str, namespace: str, models_dir: Path
) -> None:
    """It refuses to start without its topics."""
    with pytest.raises(TopicConfigError, match="petstream topics create"):
        run_scheduler(
            kafka=KafkaSettings(bootstrap_servers=broker),
            topics=TopicNames(namespace),
            models_dir=models_dir,
            slot="test",
            settings=SchedulerSettings(),
            health_file=None,
            stop=threading.Event(),
        )
