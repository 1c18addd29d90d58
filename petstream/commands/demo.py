"""`petstream demo`: the main job on real data."""

import secrets
import time
from collections.abc import Callable, Sequence

import typer
from confluent_kafka.admin import AdminClient

from messages.topics import TopicNames
from petstream.demo_report import DemoReport, as_json, as_table, make_report, throughput_qps
from petstream.demo_run import SETTLE_S, Exchange, TerminalRecords, send_and_wait
from petstream.demo_samples import DemoTask, Sample, draw_samples, load_demo_tasks
from petstream.kafka_connection import broker_settings, kafka_settings
from petstream.output import console, counting_bar, error_console, fail, print_json
from petstream.settings import Settings, load_settings
from producers.answer_log import AnswerLog
from producers.client import Client
from producers.connection import Connection
from producers.positions import ends
from transport.embedded_broker.version import BrokerVersion, ask_version

app = typer.Typer()

SEED = 20_26
STEADY_SHARE = 0.5
"""Of the throughput just seen: a machine that is always busy shows a queue's length, no latency."""
MAX_STEADY_QPS = 100.0
MIN_STEADY_QPS = 1.0
ANSWER_LIMIT_S = 120.0
BROKER_LIMIT_S = 10.0
MAX_IN_FLIGHT = 4_000


@app.command()
def demo(
    queries: int = typer.Option(600, min=2, help="How many queries."),
    attach: bool = typer.Option(
        False, "--attach", help="Use services that run already, on --bootstrap-servers."
    ),
    bootstrap_servers: str | None = typer.Option(
        None, help="Your Kafka, host:port. Default: an embedded one for the length of the demo."
    ),
    namespace: str | None = typer.Option(
        None,
        help="Prefix of the topics. Default on your Kafka without --attach: one of the demo's own, "
        "removed in the end.",
    ),
    as_json_document: bool = typer.Option(False, "--json", help="One JSON document."),
) -> None:
    """Start a real Kafka, a scheduler and a worker of each level, and ask real questions.

    Exit 0 only if every query has exactly one terminal record.

    Example: petstream demo --queries 2000 --json
    """
    tasks = load_demo_tasks()
    if attach:
        settings = broker_settings(bootstrap_servers, namespace)
        kafka = kafka_settings(settings)
        report = _ask(settings, tasks, queries, ask_version(kafka.bootstrap_servers))
    else:
        from petstream.deployment import serve_for_a_while

        settings = load_settings().with_flags(
            bootstrap_servers=bootstrap_servers, namespace=namespace
        )
        if settings.bootstrap_servers is not None and namespace is None:
            own = f"{settings.namespace[:40]}-demo-{secrets.token_hex(4)}"
            settings = settings.with_flags(namespace=own)
        with serve_for_a_while(settings, [task.folder for task in tasks]) as (
            served,
            broker_version,
        ):
            report = _ask(served, tasks, queries, broker_version)
    if as_json_document:
        print_json(as_json(report))
    else:
        _print(report)
    if not report.is_exact:
        fail(
            f"{report.lost} queries lost, {report.duplicates} answered twice, "
            f"{report.queries - report.answered} not answered in {ANSWER_LIMIT_S:.0f} s"
        )


def _ask(
    settings: Settings, tasks: list[DemoTask], queries: int, broker: BrokerVersion
) -> DemoReport:
    kafka = kafka_settings(settings)
    topics = TopicNames(settings.namespace)
    error_console.print(f"broker: {broker.name} {broker.version}")
    admin = AdminClient(kafka.admin())
    records = TerminalRecords(
        AnswerLog(kafka.reader(), topics.results, ends(admin, topics.results, BROKER_LIMIT_S))
    )
    records.start()
    try:
        with (
            counting_bar("answered", queries) as on_answer,
            Client(Connection(kafka, settings.namespace), max_in_flight=MAX_IN_FLIGHT) as client,
        ):
            exchanges, steady_qps = _send(client, draw_samples(tasks, queries, SEED), on_answer)
            time.sleep(SETTLE_S)
    finally:
        records.stop()
    return make_report(tasks, exchanges, records.counts, broker._asdict(), steady_qps=steady_qps)


def _send(
    client: Client, samples: Sequence[Sample], on_answer: Callable[[], None]
) -> tuple[list[Exchange], float]:
    """Publish half at once, which shows the throughput, and half steadily: the latency.

    Returns:
        All exchanges, and the queries/s of the steady half.
    """
    half = len(samples) // 2
    burst = send_and_wait(
        client, samples[:half], rate=None, limit_s=ANSWER_LIMIT_S, on_answer=on_answer
    )
    steady_qps = min(MAX_STEADY_QPS, max(MIN_STEADY_QPS, STEADY_SHARE * throughput_qps(burst)))
    steady = send_and_wait(
        client, samples[half:], rate=steady_qps, limit_s=ANSWER_LIMIT_S, on_answer=on_answer
    )
    return [*burst, *steady], steady_qps


def _print(report: DemoReport) -> None:
    console.print(as_table(report))
    for line in summary_lines(report):
        console.print(line)


def summary_lines(report: DemoReport) -> tuple[str, ...]:
    """Say below the table what each figure is of."""
    levels = ", ".join(f"level {level} {share:.0%}" for level, share in report.level_share.items())
    at_once = report.queries // 2
    return (
        f"all {report.queries} queries: {report.answered} answered ({levels}), "
        f"{report.errors} errors, {report.lost} lost, {report.duplicates} answered twice",
        f"throughput: {report.throughput_qps:.0f} queries/s, of the first {at_once}, "
        "which were published at once",
        f"p50 and p99: of the other {report.queries - at_once}, "
        f"published at {report.steady_qps:.0f} queries/s; the other columns: of all",
    )
