"""The transport: what a commit costs, and what exactly-once costs over at-least-once.

    python benchmarks/bench_transport.py [--json] [--rate 200] [--seconds 10]

Commit: transactions of 32 records of 200 bytes with their offsets, one after the other. Two hops:
an open loop of records at a fixed rate through two pipelines, each a process of its own, that
compute nothing; latency from the intended send time to the read_committed reader. Throughput: a
topic full of records through one such pipeline. Everything on a real broker, an embedded one
unless KAFKA_BOOTSTRAP_SERVERS names another; the two deliveries take turns.
"""

import argparse
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from petstream.benchmarks.document import Goal, make_document
from transport.deadline import Deadline
from transport.embedded_broker import EmbeddedBroker
from transport.pipeline import run_pipeline
from transport.records import Claim, OutgoingRecord, Partition, Record
from transport.session import Session
from transport.settings import Delivery, KafkaSettings
from transport.window import CountWindow

DELIVERIES: tuple[Delivery, ...] = ("exactly_once", "at_least_once")
COMMIT_RECORDS = 32
COMMIT_REPEATS = 200
RECORD_BYTES = 200
THROUGHPUT_RECORDS = 20_000
ROUNDS = 2
WARM_UP_S = 3.0
LIMIT_S = 120.0
ADDED_P50_MS = 50.0
"""At most 25 ms for each of the two hops."""
THROUGHPUT_SHARE = 0.9


class Forward:
    """Publishes every record's value to the next topic."""

    def __init__(self, topic: str) -> None:
        self._topic = topic

    def process(self, records: Sequence[Record], /) -> Sequence[OutgoingRecord]:
        """Forward."""
        return [OutgoingRecord(self._topic, record.value, record.key) for record in records]


class Nobody:
    """A listener without work to lose."""

    def drain(self, partitions: Collection[Partition], /) -> None:
        """Do nothing."""

    def forget(self, partitions: Collection[Partition], /) -> None:
        """Do nothing."""


class Bench:
    """One broker, and fresh topics for each measurement."""

    def __init__(self, bootstrap_servers: str) -> None:
        self.bootstrap_servers = bootstrap_servers
        self._admin = AdminClient(self.settings("exactly_once").admin())

    def settings(self, delivery: Delivery) -> KafkaSettings:
        """Return client settings."""
        return KafkaSettings(bootstrap_servers=self.bootstrap_servers, delivery=delivery)

    def topics(self, *names: str, partitions: int = 4) -> list[str]:
        """Make topics of a new namespace."""
        prefix = f"bench-{secrets.token_hex(4)}"
        topics = [f"{prefix}.{name}" for name in names]
        config = {"message.timestamp.type": "LogAppendTime"}
        new = [NewTopic(topic, partitions, 1, config=config) for topic in topics]
        for future in self._admin.create_topics(new).values():
            future.result(30)
        return topics

    def producer(self) -> Producer:
        """Return a producer of queries."""
        return Producer(self.settings("at_least_once").query_producer() | {"log_level": 2})

    @contextlib.contextmanager
    def reader(self, topic: str) -> Iterator[Consumer]:
        """Yield a read_committed reader of a whole topic."""
        config = self.settings("exactly_once").reader(start="earliest")
        consumer = Consumer(config | {"log_level": 2})
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, index, 0) for index in partitions])
        try:
            yield consumer
        finally:
            consumer.close()

    @contextlib.contextmanager
    def hop(self, source: str, target: str, delivery: Delivery) -> Iterator[None]:
        """Run a forwarding pipeline in a process of its own."""
        process = subprocess.Popen(
            [sys.executable, __file__, "--hop", self.bootstrap_servers, source, target, delivery],
            stderr=subprocess.DEVNULL,
        )
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def forward(bootstrap_servers: str, source: str, target: str, delivery: str) -> None:
    """Run one hop until SIGTERM."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda _signal, _frame: stop.set())
    settings = KafkaSettings.model_validate(
        {"bootstrap_servers": bootstrap_servers, "delivery": delivery}
    )
    session = Session(settings, group=f"{source}.group", topics=[source], slot="0")
    run_pipeline(session, CountWindow(500), Forward(target), stop=stop)


def measure_commit(bench: Bench, delivery: Delivery) -> list[float]:
    """Return the milliseconds of each of many publishes of a session."""
    source, target = bench.topics("in", "out")
    producer = bench.producer()
    for _ in range(COMMIT_REPEATS * COMMIT_RECORDS):
        producer.produce(source, bytes(RECORD_BYTES), partition=0)
    producer.flush()
    session = Session(bench.settings(delivery), group=f"{source}.group", topics=[source], slot="0")
    session.open(Nobody())
    times_ms: list[float] = []
    waiting: list[Record] = []
    deadline = Deadline(LIMIT_S)
    while len(times_ms) < COMMIT_REPEATS and not deadline.has_passed:
        waiting += session.poll(1000, 0.1)
        while len(waiting) >= COMMIT_RECORDS:
            unit, waiting = waiting[:COMMIT_RECORDS], waiting[COMMIT_RECORDS:]
            epoch = session.epoch(unit[0].source) or 0
            outgoing = [OutgoingRecord(target, record.value) for record in unit]
            started_s = time.monotonic()
            session.publish(outgoing, [Claim(unit[0].source, epoch, unit[-1].offset + 1)])
            times_ms.append(1000 * (time.monotonic() - started_s))
    session.close(Deadline(5.0))
    return times_ms[5:]  # the first ones wait for the coordinators


def measure_latency(bench: Bench, delivery: Delivery, rate: float, seconds: float) -> list[float]:
    """Return the latency in milliseconds of each record of an open loop over two hops."""
    source, middle, target = bench.topics("in", "middle", "out")
    num_records = int(rate * (WARM_UP_S + seconds))
    with (
        bench.hop(source, middle, delivery),
        bench.hop(middle, target, delivery),
        bench.reader(target) as reader,
    ):
        _wait_for_first(bench, source, reader)
        sender = threading.Thread(target=_send, args=(bench, source, rate, num_records))
        sender.start()
        latencies_ms: list[float] = []
        deadline = Deadline(LIMIT_S)
        while len(latencies_ms) < num_records and not deadline.has_passed:
            # One by one: `consume` would wait for a full list, and that would be measured.
            message = reader.poll(0.1)
            intended_s = float(message.value() or b"0") if message is not None else 0.0
            if intended_s:
                latencies_ms.append(1000 * (time.monotonic() - intended_s))
        sender.join()
    if len(latencies_ms) < num_records:
        raise SystemExit(f"{num_records - len(latencies_ms)} records did not arrive")
    return latencies_ms[int(rate * WARM_UP_S) :]


def measure_throughput(bench: Bench, delivery: Delivery) -> float:
    """Return records per second of one hop from a full topic, by the broker's append times."""
    source, target = bench.topics("in", "out")
    producer = bench.producer()
    for _ in range(THROUGHPUT_RECORDS):
        producer.produce(source, bytes(RECORD_BYTES))
        producer.poll(0)
    producer.flush()
    appended_ms: list[int] = []
    deadline = Deadline(LIMIT_S)
    with bench.hop(source, target, delivery), bench.reader(target) as reader:
        while len(appended_ms) < THROUGHPUT_RECORDS and not deadline.has_passed:
            appended_ms += [message.timestamp()[1] for message in reader.consume(1000, 0.1)]
    if len(appended_ms) < THROUGHPUT_RECORDS:
        raise SystemExit(f"{THROUGHPUT_RECORDS - len(appended_ms)} records did not arrive")
    return 1000 * len(appended_ms) / (max(appended_ms) - min(appended_ms))


def _wait_for_first(bench: Bench, source: str, reader: Consumer) -> None:
    """Send records that do not count until one has come through both hops."""
    producer = bench.producer()
    deadline = Deadline(LIMIT_S)
    while not deadline.has_passed:
        producer.produce(source, b"0")
        producer.flush()
        if any(message.error() is None for message in reader.consume(10, 0.5)):
            return
    raise SystemExit("nothing came through the two hops")


def _send(bench: Bench, topic: str, rate: float, num_records: int) -> None:
    """Send at fixed times, late or not: the value is the intended time."""
    producer = bench.producer()
    start_s = time.monotonic()
    for number in range(num_records):
        intended_s = start_s + number / rate
        time.sleep(max(0.0, intended_s - time.monotonic()))
        producer.produce(topic, repr(intended_s).encode())
        producer.poll(0)
    producer.flush()


def run(bench: Bench, rate: float, seconds: float) -> dict[str, Any]:
    """Measure everything, the deliveries in turns."""
    commits_ms: dict[str, list[float]] = {delivery: [] for delivery in DELIVERIES}
    latencies_ms: dict[str, list[float]] = {delivery: [] for delivery in DELIVERIES}
    rates: dict[str, list[float]] = {delivery: [] for delivery in DELIVERIES}
    for _ in range(ROUNDS):
        for delivery in DELIVERIES:
            commits_ms[delivery] += measure_commit(bench, delivery)
            latencies_ms[delivery] += measure_latency(bench, delivery, rate, seconds)
            rates[delivery].append(measure_throughput(bench, delivery))
    rows: list[dict[str, Any]] = [
        {
            "delivery": delivery,
            "commit_p50_ms": _percentile(commits_ms[delivery], 50),
            "commit_p99_ms": _percentile(commits_ms[delivery], 99),
            "two_hops_rate_per_s": rate,
            "two_hops_p50_ms": _percentile(latencies_ms[delivery], 50),
            "two_hops_p99_ms": _percentile(latencies_ms[delivery], 99),
            "one_hop_records_per_s": round(max(rates[delivery])),
        }
        for delivery in DELIVERIES
    ]
    exact, least = rows
    goals = [
        Goal(
            "two_hops_added_p50",
            ADDED_P50_MS,
            round(exact["two_hops_p50_ms"] - least["two_hops_p50_ms"], 1),
            "ms",
            "at most",
        ),
        Goal(
            "throughput_share",
            THROUGHPUT_SHARE,
            round(exact["one_hop_records_per_s"] / least["one_hop_records_per_s"], 2),
            "exactly_once over at_least_once",
        ),
    ]
    return make_document(rows, goals)


def _percentile(values: Sequence[float], percent: float) -> float:
    return round(float(np.percentile(values, percent)), 1)


def main() -> None:
    """Run the benchmark, or one hop of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--rate", type=float, default=200.0, help="records a second")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each open loop")
    parser.add_argument("--hop", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.hop:
        forward(*arguments.hop)
        return
    with contextlib.ExitStack() as stack:
        servers = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
        if servers is None:
            servers = stack.enter_context(EmbeddedBroker()).bootstrap_servers
        document = run(Bench(servers), arguments.rate, arguments.seconds)
    if arguments.json:
        print(json.dumps(document, indent=2))
        return
    print(f"{document['device']}, load {document['load_average']:.1f}")
    for row in document["rows"]:
        print("  ".join(f"{key} {value}" for key, value in row.items()))
    for goal in document["goals"]:
        verdict = "met" if goal["met"] else "NOT met"
        print(f"{goal['id']}: {goal['value']} {goal['unit']} (goal {goal['target']}): {verdict}")


if __name__ == "__main__":
    main()
