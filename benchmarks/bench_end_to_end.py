"""The whole way through Kafka against the bare engine, on the same queries.

    python benchmarks/bench_end_to_end.py [--json] [--rounds 3]

Two workloads: the demo's short queries through both levels, and 64 tasks at the large level alone
with texts of 32 to 128 tokens, as `petstream bench engine` has them.

Bare engine: the levels in this process, rows tokenised beforehand and batched as the scheduler
would, the cascade's decisions made, no Kafka. Through Kafka: client, broker, scheduler and one
worker of each level as processes of their own on the same cores, exactly once. The two alternate.
Both come with their processor time for each query, by process: where the difference goes. On a
machine whose clock moves between one and the other, the workers' share of it tells more than the
ratio: what of the cores client, broker and scheduler leave.
Then, at 100 of the demo's queries a second, what the hops add to the time of the compute.
"""

import argparse
import json
import random
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from messages.query import QueryParameters
from messages.result import Result
from petstream.benchmarks.document import Goal, make_document
from petstream.benchmarks.task_copies import copy_under
from petstream.demo_run import send_and_wait
from petstream.demo_samples import DemoTask, Sample, draw_samples, load_demo_tasks
from petstream.deployment import serve_for_a_while
from petstream.kafka_connection import kafka_settings
from petstream.settings import Settings, load_settings
from petstream.task_registry import shapes_of
from producers.client import Client
from producers.connection import Connection
from scheduler.cost_model import default_cost_model
from scheduler.planning import PlanLimits, PlanRows, plan
from scheduler.policies.catalogue import DEFAULT_POLICY, POLICIES
from scheduler.tokenisation import BackboneTokenizer
from tasks.artifact import open_artifact
from tasks.bfloat16_record import passes_bfloat16
from tasks.store import TaskStore
from workers.backbone import Backbone
from workers.backbone_store import BackboneStore
from workers.cascade import judge, next_level
from workers.engine import Engine, EngineRow
from workers.levels import LEVEL_BACKBONES
from workers.loaded_task import LoadedTask
from workers.precision import precisions_of

SEED = 11
NUM_TASKS = 64
LENGTHS = (32, 128)
"""Tokens of a long text, uniformly."""
MAX_IN_FLIGHT = 8_000
LIMIT_S = 300.0


@dataclass(frozen=True, slots=True)
class Workload:
    """What is asked."""

    name: str
    tasks: Sequence[DemoTask]
    samples: Sequence[Sample]
    goal: float
    """Queries/s through Kafka over the bare engine's."""
    level: int | None = None
    """The level that every query forces; None: the cascade decides."""

    @property
    def parameters(self) -> QueryParameters:
        """Those of every query."""
        return QueryParameters(level=self.level)


@dataclass(slots=True)
class BareLevel:
    """One level without Kafka: its engine, tokenizer and loaded tasks."""

    level: int
    engine: Engine
    tokenizer: BackboneTokenizer
    tasks: dict[str, LoadedTask]

    def rows(self, samples: Sequence[Sample]) -> list[EngineRow]:
        """Tokenise; not part of what is timed."""
        tasks = [self.tasks[sample.task] for sample in samples]
        limits = [task.description.level(self.level).max_tokens for task in tasks]
        found = token_ids(self.tokenizer, [sample.text for sample in samples], limits)
        return [EngineRow(task, ids) for task, ids in zip(tasks, found, strict=True)]

    def run(self, rows: Sequence[EngineRow]) -> list[np.ndarray[Any, np.dtype[np.float32]]]:
        """Run rows in the batches that the default policy makes of them."""
        names = {name: index for index, name in enumerate(self.tasks)}
        columns = PlanRows(
            np.array([names[row.task.description.name] for row in rows], np.int64),
            np.array([len(row.token_ids) for row in rows], np.int64),
            tuple("bitfit" for _ in names),
        )
        logits: dict[int, np.ndarray[Any, np.dtype[np.float32]]] = {}
        for batch in plan(columns, default_cost_model(), POLICIES[DEFAULT_POLICY], PlanLimits()):
            numbers = batch.row_indices.tolist()
            outputs = self.engine.run([rows[number] for number in numbers])
            logits.update(zip(numbers, outputs, strict=True))
        return [logits[number] for number in range(len(rows))]


def token_ids(
    tokenizer: BackboneTokenizer, texts: Sequence[str], max_tokens: Sequence[int]
) -> list[NDArray[np.int64]]:
    """Tokenise as the scheduler does, each text cut where its own task says."""
    found: dict[int, NDArray[np.int64]] = {}
    for limit in set(max_tokens):
        numbers = [number for number, own in enumerate(max_tokens) if own == limit]
        encoded = tokenizer.encode([texts[number] for number in numbers], limit)
        for number, ids in zip(numbers, encoded, strict=True):
            assert isinstance(ids, bytes), ids
            found[number] = np.frombuffer(ids, "<u4").astype(np.int64)
    return [found[number] for number in range(len(texts))]


def load_level(level: int, tasks: Sequence[DemoTask], settings: Settings) -> BareLevel:
    """Load backbone and tasks of one level, to be computed in what a worker would."""
    folder = BackboneStore(settings.models_dir).fetch(LEVEL_BACKBONES[level])
    engine = Engine(Backbone.load(folder), precisions=precisions_of(settings.dtype))
    tokenizer = BackboneTokenizer(folder / "tokenizer.json")
    loaded = {}
    for task in tasks:
        artifact = open_artifact(task.folder)
        loaded[task.name] = engine.load_task(
            artifact.description,
            level,
            artifact.load_level(level, engine.backbone.shape),
            engine.precision_of(passes_bfloat16=passes_bfloat16(artifact, level)),
        )
    return BareLevel(level, engine, tokenizer, loaded)


def short_queries(count: int) -> Workload:
    """Return the demo's: its tasks in equal parts, some ten tokens each."""
    tasks = load_demo_tasks()
    return Workload("cascade", tasks, draw_samples(tasks, count, SEED), goal=0.85)


def long_queries(count: int, folder: Path, models_dir: Path) -> Workload:
    """Return long texts for many tasks at the large level.

    The tasks are the demo's under further names, as many of each; a text is those of the task's
    samples, end to end, until it has its length. What is longer is cut by the task.

    Args:
        count: How many.
        folder: For the tasks.
        models_dir: The backbones of this machine.
    """
    tokenizer = BackboneTokenizer(
        BackboneStore(models_dir).fetch(LEVEL_BACKBONES[1]) / "tokenizer.json"
    )
    examples = load_demo_tasks()
    store = TaskStore(folder)
    tasks: list[DemoTask] = []
    for number in range(NUM_TASKS):
        example = examples[number % len(examples)]
        name = f"{example.name}-{number}"
        model = store.add(
            example.folder, shapes_of(open_artifact(example.folder).description, models_dir)
        )
        copied = copy_under(name, model, folder)
        tasks.append(replace(example, name=name, folder=copied.folder))
    draw = random.Random(SEED)
    samples = []
    for number in range(count):
        task = tasks[number % len(tasks)]
        wanted, text = draw.randint(*LENGTHS), draw.choice(task.samples).text
        while num_tokens(tokenizer, text) < wanted:
            text = f"{text} {draw.choice(task.samples).text}"
        samples.append(Sample(task.name, text))
    return Workload("64-tasks", tasks, samples, goal=0.90, level=1)


def num_tokens(tokenizer: BackboneTokenizer, text: str) -> int:
    """Return how many tokens a text has, at most those of the longest long text."""
    return len(token_ids(tokenizer, [text], [LENGTHS[1]])[0])


def bare_figures(levels: Mapping[int, BareLevel], workload: Workload) -> dict[str, float]:
    """Run a workload without Kafka, its first level first."""
    samples = workload.samples
    rows = {number: level.rows(samples) for number, level in levels.items()}
    started_s, started_cpu_s = time.perf_counter(), time.process_time()
    first = min(levels) if workload.level is None else workload.level
    logits = levels[first].run(rows[first])
    onward: dict[int, list[EngineRow]] = defaultdict(list)
    for number, row in enumerate(rows[first]):
        description = row.task.description
        output = judge(description, first, logits[number], None)
        to = next_level(description, first, output, workload.parameters)
        if to is not None:
            onward[to].append(rows[to][number])
    for to, escalated in onward.items():
        levels[to].run(escalated)
    took_s, took_cpu_s = time.perf_counter() - started_s, time.process_time() - started_cpu_s
    return {
        "bare_engine_qps": len(samples) / took_s,
        "escalated_share": sum(map(len, onward.values())) / len(samples),
        "tokens_per_query": statistics.mean(len(row.token_ids) for row in rows[first]),
        "bare_engine_cpu_ms_per_query": 1000 * took_cpu_s / len(samples),
    }


def processor_seconds() -> dict[str, float]:
    """Return the processor time used so far, by process: this one is the client."""
    seconds = defaultdict(float, client=time.process_time())
    for process in psutil.Process().children(recursive=True):
        try:
            words, times = process.cmdline(), process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        if "kafka.Kafka" in words:
            seconds["broker"] += times.user + times.system
        elif "worker" in words:
            seconds[f"worker_{words[words.index('--level') + 1]}"] += times.user + times.system
        elif "scheduler" in words:
            seconds["scheduler"] += times.user + times.system
    return seconds


def processor_ms_per_query(before: dict[str, float], num_queries: int) -> dict[str, float]:
    """Return the processor time since `before` for each query, by process; the workers' share."""
    after = processor_seconds()
    spent_s = {name: after[name] - before.get(name, 0.0) for name in sorted(after)}
    of_workers_s = sum(spent for name, spent in spent_s.items() if name.startswith("worker"))
    return {f"{name}_cpu_ms_per_query": 1000 * s / num_queries for name, s in spent_s.items()} | {
        "workers_share_of_cpu": of_workers_s / sum(spent_s.values())
    }


def kafka_queries_per_s(client: Client, workload: Workload) -> float:
    """Return queries/s from the first publication to the last answer."""
    exchanges = send_and_wait(
        client,
        workload.samples,
        limit_s=LIMIT_S,
        on_answer=lambda: None,
        rate=None,
        parameters=workload.parameters,
    )
    ends_s = [exchange.answered_s for exchange in exchanges]
    assert all(isinstance(exchange.answer, Result) for exchange in exchanges)
    last_s = max(end_s for end_s in ends_s if end_s is not None)
    return len(exchanges) / (last_s - min(exchange.sent_s for exchange in exchanges))


def added_latency_ms(client: Client, samples: Sequence[Sample]) -> dict[str, float]:
    """Return latency at a steady 100 queries/s, and what of it was not compute."""
    exchanges = send_and_wait(client, samples, limit_s=LIMIT_S, on_answer=lambda: None, rate=100.0)
    totals, added = [], []
    for exchange in exchanges:
        assert isinstance(exchange.answer, Result)
        assert exchange.latency_ms is not None
        hops = dict(exchange.answer.timings_ms)
        compute = sum(spent for hop, spent in hops.items() if hop.startswith("compute"))
        totals.append(exchange.latency_ms)
        added.append(exchange.latency_ms - compute)
    return {
        "total_p50_ms": statistics.median(totals),
        "total_p99_ms": float(np.percentile(totals, 99)),
        "added_p50_ms": statistics.median(added),
        "added_p99_ms": float(np.percentile(added, 99)),
    }


def measure(
    settings: Settings, workload: Workload, rounds: int, *, with_latency: bool
) -> list[dict[str, Any]]:
    """Run one workload; return a row for each round and, if asked for, one of latencies."""
    numbers = sorted(LEVEL_BACKBONES) if workload.level is None else [workload.level]
    levels = {number: load_level(number, workload.tasks, settings) for number in numbers}
    rows: list[dict[str, Any]] = []
    with serve_for_a_while(settings, [task.folder for task in workload.tasks]) as (served, _):
        connection = Connection(kafka_settings(served), served.namespace)
        with Client(connection, max_in_flight=MAX_IN_FLIGHT) as client:
            bare_figures(levels, workload)
            kafka_queries_per_s(client, workload)
            for _ in range(rounds):
                bare = bare_figures(levels, workload)
                before = processor_seconds()
                through_kafka = kafka_queries_per_s(client, workload)
                rows.append(
                    {
                        "workload": workload.name,
                        **bare,
                        "through_kafka_qps": through_kafka,
                        "ratio": through_kafka / bare["bare_engine_qps"],
                        **processor_ms_per_query(before, len(workload.samples)),
                    }
                )
            if with_latency:
                rows.append(
                    {"workload": workload.name, **added_latency_ms(client, workload.samples[:1000])}
                )
    for level in levels.values():
        level.engine.close()
    return rows


def measure_all(settings: Settings, rounds: int, queries: int, long: int) -> dict[str, Any]:
    """Run both workloads; return the document.

    Args:
        settings: Of this machine.
        rounds: Of each workload.
        queries: Short ones.
        long: Long ones.
    """
    rows: list[dict[str, Any]] = []
    goals = []
    with tempfile.TemporaryDirectory(prefix="petstream-bench-") as folder:
        workloads = (
            short_queries(queries),
            long_queries(long, Path(folder), settings.models_dir),
        )
        for workload in workloads:
            found = measure(settings, workload, rounds, with_latency=workload.level is None)
            rows += found
            ratio = statistics.median(row["ratio"] for row in found if "ratio" in row)
            name = f"C9-{workload.name}-over-bare-engine"
            goals.append(Goal(name, workload.goal, ratio, "ratio of queries/s"))
    return make_document(rows, goals)


def main() -> None:
    """Print the figures for people, or one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--queries", type=int, default=4000, help="short ones")
    parser.add_argument("--long-queries", type=int, default=960)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    document = measure_all(load_settings(), options.rounds, options.queries, options.long_queries)
    if options.json:
        print(json.dumps(document, indent=2))
        return
    for row in document["rows"]:
        print(", ".join(f"{n} {v if isinstance(v, str) else f'{v:.3g}'}" for n, v in row.items()))
    for goal in document["goals"]:
        print(f"{goal['id']}: {goal['value']:.2f} (goal {goal['target']}, met: {goal['met']})")


if __name__ == "__main__":
    main()
