"""The scheduler: how long planning takes, and how many queries one process schedules a second.

    python benchmarks/bench_scheduler.py [--json] [--queries 40000] [--tasks 64]

Planning: one window of 4,096 queries of 64 tasks, each policy. Throughput: a real Kafka, one
`petstream scheduler` process, a topic full of queries, and in place of the workers a reader that
only commits. The rate is taken from the broker's append times of the batches, so neither the
scheduler's start nor the reader counts. It is set against what this machine's CPU computes of the
same batches with `workers.engine`.
"""

import argparse
import contextlib
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack  # type: ignore[import-untyped]
import numpy as np
import psutil
from confluent_kafka import Consumer, Message, Producer, TopicPartition

from messages.batch import Batch
from messages.batch_codec import decode_batch
from messages.query import Query
from messages.query_codec import encode_query
from messages.task_event import TaskEvent, TaskLevel, TaskReference, TaskRevision
from messages.task_event_codec import encode_task_event
from messages.topics import TopicNames
from petstream.benchmarks.document import Goal, make_document
from petstream.settings import load_settings
from scheduler.cost_model import PET_KINDS, default_cost_model
from scheduler.planning import PlanLimits, PlanRows, plan
from scheduler.policies.catalogue import POLICIES
from transport.embedded_broker import EmbeddedBroker
from transport.groups import worker_group
from transport.settings import KafkaSettings
from transport.topics import create_topics

PLAN_QUERIES = 4096
PLAN_TASKS = 64
PLAN_REPEATS = 200
WORDS = (  # drawn from at random
    *("please", "transfer", "money", "from", "my", "checking", "account", "to", "savings", "how"),
    *("do", "i", "change", "the", "pin", "of", "card", "tomorrow", "at", "noon", "what", "is"),
    *("exchange", "rate", "for", "a", "new", "order", "that", "was", "declined", "yesterday"),
)
LIMIT_S = 90.0
ENGINE_BATCHES = 8
ENGINE_REPEATS = 3


def plan_rows() -> PlanRows:
    """One window: tasks uniform, lengths N(24, 8)."""
    rng = np.random.default_rng(0)
    return PlanRows(
        rng.integers(0, PLAN_TASKS, PLAN_QUERIES),
        np.clip(rng.normal(24, 8, PLAN_QUERIES).astype(np.int64), 3, 128),
        tuple(rng.choice(PET_KINDS, PLAN_TASKS).tolist()),
    )


def measure_planning() -> list[dict[str, Any]]:
    """Time every policy on the same window."""
    rows, costs, limits = plan_rows(), default_cost_model(), PlanLimits()
    figures = []
    for name, policy in POLICIES.items():
        plan(rows, costs, policy, limits)  # fills the tables' caches
        times_ms = []
        for _ in range(PLAN_REPEATS):
            # Planning waits for nothing, so its processor time is its time on a machine of its own.
            started_s = time.thread_time()
            batches = plan(rows, costs, policy, limits)
            times_ms.append(1000 * (time.thread_time() - started_s))
        figures.append(
            {
                "part": "planning",
                "policy": name,
                "queries": PLAN_QUERIES,
                "tasks": PLAN_TASKS,
                "batches": len(batches),
                "predicted_ms": round(sum(batch.predicted_ms for batch in batches), 1),
                "p50_ms": round(float(np.percentile(times_ms, 50)), 3),
                "p99_ms": round(float(np.percentile(times_ms, 99)), 3),
            }
        )
    return figures


def publish_workload(
    kafka: KafkaSettings, topics: TopicNames, num_queries: int, num_tasks: int
) -> None:
    """Register tasks of every PET kind, then fill the query topic."""
    producer = Producer(kafka.query_producer())
    for number in range(num_tasks):
        kind = PET_KINDS[number % len(PET_KINDS)]
        revision = TaskRevision(
            TaskReference(f"task-{number}", 1, f"sha256:{number:064x}"),
            "single_label",
            num_outputs=64,
            takes_pair=False,
            levels=(TaskLevel(0, "minilm-l3", kind, 128), TaskLevel(1, "minilm-l6", kind, 128)),
        )
        event = TaskEvent(f"task-{number}", False, (revision,))
        producer.produce(topics.tasks, encode_task_event(event).value, event.name)
    rng = np.random.default_rng(1)
    lengths = np.clip(rng.normal(12, 5, num_queries).astype(int), 2, 60)
    for number in range(num_queries):
        text = " ".join(rng.choice(WORDS, lengths[number]))
        query = Query(f"{number:032x}", f"task-{rng.integers(num_tasks)}", text)
        message = encode_query(query)
        while True:
            try:
                producer.produce(
                    topics.queries, message.value, query.id, headers=list(message.headers)
                )
                break
            except BufferError:
                producer.poll(0.1)
    producer.flush(LIMIT_S)


@contextlib.contextmanager
def scheduler_process(bootstrap_servers: str, namespace: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run `petstream scheduler` as a user does, with its defaults."""
    process = subprocess.Popen(
        [sys.executable, "-m", "petstream", "scheduler", "--slot", "bench"],
        env=os.environ
        | {"KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers, "PETSTREAM_NAMESPACE": namespace},
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def drain(kafka: KafkaSettings, topics: TopicNames, num_queries: int) -> list[Message]:
    """Stand in for the workers of level 0: take batches, run nothing, commit."""
    group = worker_group(topics.namespace, 0)
    consumer = Consumer(kafka.reader(group=group, start="earliest"))
    consumer.subscribe([topics.batches(0)])
    taken: list[Message] = []
    num_rows = 0
    limit_s = time.monotonic() + LIMIT_S
    while num_rows < num_queries:
        if time.monotonic() > limit_s:
            raise TimeoutError(f"{num_rows} of {num_queries} queries were scheduled in {LIMIT_S} s")
        messages = [m for m in consumer.consume(100, 0.1) if m.error() is None]
        taken += messages
        # Counted without the checks of decode_batch: this process must not be the bottleneck.
        num_rows += sum(len(msgpack.unpackb(m.value() or b"")["rows"]) for m in messages)
        settled = {(m.topic() or "", m.partition() or 0): 1 + (m.offset() or 0) for m in messages}
        if settled:
            consumer.commit(offsets=[TopicPartition(*p, o) for p, o in settled.items()])
    consumer.close()
    return taken


def measure_throughput(num_queries: int, num_tasks: int) -> tuple[dict[str, Any], list[Batch]]:
    """Let one scheduler process empty a full query topic."""
    with EmbeddedBroker() as broker:
        kafka = KafkaSettings(bootstrap_servers=broker.bootstrap_servers)
        topics = TopicNames(f"bench-{secrets.token_hex(4)}")
        create_topics(kafka, topics)
        publish_workload(kafka, topics, num_queries, num_tasks)
        with scheduler_process(broker.bootstrap_servers, topics.namespace) as process:
            messages = drain(kafka, topics, num_queries)
            cpu = psutil.Process(process.pid).cpu_times()
    batches = [decode_batch(message.value()) for message in messages]
    origins = {row.origin for batch in batches for row in batch.rows}
    if len(origins) != num_queries or sum(len(b.rows) for b in batches) != num_queries:
        raise AssertionError(
            f"{len(origins)} of {num_queries} queries in the batches, not each once"
        )
    appended_ms = np.array([message.timestamp()[1] for message in messages])
    num_rows = np.array([len(batch.rows) for batch in batches])
    span_s = (appended_ms.max() - appended_ms.min()) / 1000
    return {
        "part": "throughput",
        "queries": num_queries,
        "tasks": num_tasks,
        "batches": len(batches),
        "tokens_per_query": round(
            sum(len(row.token_ids) // 4 for b in batches for row in b.rows) / num_queries, 1
        ),
        # The first transaction's queries were scheduled before the clock began.
        "queries_per_s": round(float(num_rows[appended_ms > appended_ms.min()].sum()) / span_s),
        "cpu_us_per_query": round(1e6 * (cpu.user + cpu.system) / num_queries, 1),
    }, batches


def measure_engine(batches: list[Batch], models_dir: Path) -> dict[str, Any]:
    """Let the engine of level 0 compute some of the very batches, on all cores."""
    from workers.backbone import Backbone
    from workers.backbone_store import find
    from workers.engine import Engine, EngineRow
    from workers.profiler import PROFILED_PETS, load_random_task

    engine = Engine(Backbone.load(find("minilm-l3", models_dir)))
    pets = {str(pet.kind): pet for pet in PROFILED_PETS}
    numbers = sorted({task.name for batch in batches for task in batch.tasks})
    tasks = {
        name: load_random_task(engine, pets[PET_KINDS[int(name[5:]) % len(PET_KINDS)]], seed=seed)
        for seed, name in enumerate(numbers)
    }
    chosen = batches[len(batches) // 2 :][:ENGINE_BATCHES]
    inputs = [
        [
            EngineRow(
                tasks[batch.tasks[row.task_index].name],
                np.frombuffer(row.token_ids, "<u4").astype(np.int64),
            )
            for row in batch.rows
        ]
        for batch in chosen
    ]
    engine.run(inputs[0])
    rates = []
    for _ in range(ENGINE_REPEATS):
        started_s = time.perf_counter()
        for rows in inputs:
            engine.run(rows)
        rates.append(sum(map(len, inputs)) / (time.perf_counter() - started_s))
    engine.close()
    return {
        "part": "engine",
        "backbone": "minilm-l3",
        "threads": engine.num_threads,
        "queries": sum(map(len, inputs)),
        "queries_per_s": round(max(rates)),
    }


def main() -> None:
    """Measure, then print a table or one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--queries", type=int, default=40_000)
    parser.add_argument("--tasks", type=int, default=64)
    arguments = parser.parse_args()

    rows = measure_planning()
    throughput, batches = measure_throughput(arguments.queries, arguments.tasks)
    engine = measure_engine(batches, load_settings().models_dir)
    rows += [throughput, engine]
    ratio = round(throughput["queries_per_s"] / engine["queries_per_s"], 1)
    packed = next(row for row in rows if row.get("policy") == "packed")
    goals = [
        Goal("plan-4096-packed", 2.0, packed["p99_ms"], "ms", "at most"),
        Goal("scheduler-over-workers", 10.0, ratio, "times"),
    ]
    document = make_document(rows, goals)
    if arguments.json:
        print(json.dumps(document))
        return
    for row in rows:
        print("  ".join(f"{name}={value}" for name, value in row.items()))
    for reached in document["goals"]:
        print(reached)


if __name__ == "__main__":
    main()
