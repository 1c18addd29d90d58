"""The whole way through Kafka against the bare engine, on the same queries.

    python benchmarks/bench_end_to_end.py [--json] [--queries 4000] [--rounds 3]

Bare engine: both levels in this process, rows tokenised beforehand and batched as the scheduler
would, the cascade's decisions made, no Kafka. Through Kafka: client, broker, scheduler and one
worker of each level as processes of their own on the same cores, exactly once. The two alternate.
Both come with their processor time for each query, by process: where the difference goes.
Then, at 100 queries/s, what the hops add to the time of the compute.
"""

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from messages.query import QueryParameters
from messages.result import Result
from petstream.benchmarks.document import Goal, make_document
from petstream.demo_run import send_and_wait
from petstream.demo_samples import DemoTask, Sample, draw_samples, load_demo_tasks
from petstream.deployment import serve_for_a_while
from petstream.kafka_connection import kafka_settings
from petstream.settings import Settings, load_settings
from producers.client import Client
from producers.connection import Connection
from scheduler.cost_model import default_cost_model
from scheduler.planning import PlanLimits, PlanRows, plan
from scheduler.policies.catalogue import DEFAULT_POLICY, POLICIES
from scheduler.tokenisation import BackboneTokenizer
from tasks.artifact import open_artifact
from workers.backbone import Backbone
from workers.backbone_store import BackboneStore
from workers.cascade import judge, next_level
from workers.engine import Engine, EngineRow
from workers.levels import LEVEL_BACKBONES
from workers.loaded_task import LoadedTask

SEED = 11
RATIO_GOAL = 0.85
MAX_IN_FLIGHT = 8_000
LIMIT_S = 300.0


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


def load_level(level: int, tasks: Sequence[DemoTask], models_dir: Path) -> BareLevel:
    """Load backbone and tasks of one level."""
    folder = BackboneStore(models_dir).fetch(LEVEL_BACKBONES[level])
    engine = Engine(Backbone.load(folder))
    tokenizer = BackboneTokenizer(folder / "tokenizer.json")
    loaded = {}
    for task in tasks:
        artifact = open_artifact(task.folder)
        weights = artifact.load_level(level, engine.backbone.shape)
        loaded[task.name] = engine.load_task(artifact.description, level, weights)
    return BareLevel(level, engine, tokenizer, loaded)


def bare_figures(small: BareLevel, large: BareLevel, samples: Sequence[Sample]) -> dict[str, float]:
    """Run both levels without Kafka."""
    small_rows, large_rows = small.rows(samples), large.rows(samples)
    started_s, started_cpu_s = time.perf_counter(), time.process_time()
    logits = small.run(small_rows)
    onward = []
    for number, row in enumerate(small_rows):
        description = row.task.description
        output = judge(description, 0, logits[number], None)
        if next_level(description, 0, output, QueryParameters()) is not None:
            onward.append(number)
    if onward:
        large.run([large_rows[number] for number in onward])
    took_s, took_cpu_s = time.perf_counter() - started_s, time.process_time() - started_cpu_s
    return {
        "bare_engine_qps": len(samples) / took_s,
        "escalated_share": len(onward) / len(samples),
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
    """Return the processor time since `before` for each query, by process."""
    after = processor_seconds()
    return {
        f"{name}_cpu_ms_per_query": 1000 * (after[name] - before.get(name, 0.0)) / num_queries
        for name in sorted(after)
    }


def kafka_queries_per_s(client: Client, samples: Sequence[Sample]) -> float:
    """Return queries/s from the first publication to the last answer."""
    exchanges = send_and_wait(client, samples, limit_s=LIMIT_S, on_answer=lambda: None, rate=None)
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


def measure(settings: Settings, queries: int, rounds: int) -> dict[str, Any]:
    """Run the whole benchmark."""
    tasks = load_demo_tasks()
    small, large = (load_level(level, tasks, settings.models_dir) for level in (0, 1))
    samples = draw_samples(tasks, queries, SEED)
    rows: list[dict[str, Any]] = []
    with serve_for_a_while(settings, [task.folder for task in tasks]) as (served, _):
        connection = Connection(kafka_settings(served), served.namespace)
        with Client(connection, max_in_flight=MAX_IN_FLIGHT) as client:
            bare_figures(small, large, samples)
            kafka_queries_per_s(client, samples)
            for _ in range(rounds):
                bare = bare_figures(small, large, samples)
                before = processor_seconds()
                through_kafka = kafka_queries_per_s(client, samples)
                rows.append(
                    {
                        **bare,
                        "through_kafka_qps": through_kafka,
                        "ratio": through_kafka / bare["bare_engine_qps"],
                        **processor_ms_per_query(before, len(samples)),
                    }
                )
            rows.append(added_latency_ms(client, samples[:1000]))
    ratio = statistics.median(row["ratio"] for row in rows[:-1])
    return make_document(
        rows, [Goal("end-to-end-over-bare-engine", RATIO_GOAL, ratio, "ratio of queries/s")]
    )


def main() -> None:
    """Print the figures for people, or one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--queries", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    document = measure(load_settings(), options.queries, options.rounds)
    if options.json:
        print(json.dumps(document, indent=2))
        return
    for row in document["rows"]:
        print(", ".join(f"{name} {value:.3g}" for name, value in row.items()))
    for goal in document["goals"]:
        print(f"{goal['id']}: {goal['value']:.2f} (goal {goal['target']}, met: {goal['met']})")


if __name__ == "__main__":
    main()
