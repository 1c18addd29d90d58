"""What the demo saw, as numbers, as a table and as JSON."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from messages.origin import Origin
from messages.result import Result
from petstream.demo_run import Exchange, is_error
from petstream.demo_samples import DemoTask
from producers.latency import LatencySummary, summarise


@dataclass(frozen=True, slots=True)
class TaskReport:
    """One line of the table."""

    task: str
    pet_kind: str
    queries: int
    level_0_share: float
    """Of all its queries."""
    accuracy: float
    latency_ms: LatencySummary | None
    """Of the steady half."""


@dataclass(frozen=True, slots=True)
class DemoReport:
    """The whole account."""

    queries: int
    answered: int
    errors: int
    lost: int
    duplicates: int
    tasks: tuple[TaskReport, ...]
    level_share: Mapping[str, float]
    """Of the results, by the level that gave them."""
    throughput_qps: float
    """Of the half that was published at once."""
    steady_qps: float
    """At which the other half was published."""
    latency_ms: LatencySummary | None
    """Of the steady half."""
    broker: Mapping[str, str]

    @property
    def is_exact(self) -> bool:
        """Whether every query has exactly one terminal record."""
        return self.lost == 0 and self.duplicates == 0 and self.answered == self.queries


def make_report(
    tasks: Sequence[DemoTask],
    exchanges: Sequence[Exchange],
    terminal_records: Counter[Origin],
    broker: Mapping[str, str],
    *,
    steady_qps: float,
) -> DemoReport:
    """Account for every query.

    Args:
        tasks: The demo's tasks.
        exchanges: Every query with its answer.
        terminal_records: How many terminal records each origin has.
        broker: Name and version of the broker.
        steady_qps: Queries/s at which the steady half was published.
    """
    origins = [exchange.ticket.origin for exchange in exchanges]
    counts = [0 if origin is None else terminal_records[origin] for origin in origins]
    levels = Counter(
        exchange.answer.level for exchange in exchanges if isinstance(exchange.answer, Result)
    )
    burst = [exchange for exchange in exchanges if not exchange.is_steady]
    return DemoReport(
        queries=len(exchanges),
        answered=sum(exchange.answer is not None for exchange in exchanges),
        errors=sum(is_error(exchange) for exchange in exchanges),
        lost=sum(count == 0 for count in counts),
        duplicates=sum(max(0, count - 1) for count in counts),
        tasks=tuple(_task_report(task, exchanges) for task in tasks),
        level_share={
            str(level): levels[level] / max(1, levels.total()) for level in sorted(levels)
        },
        throughput_qps=throughput_qps(burst),
        steady_qps=steady_qps,
        latency_ms=_latency(exchanges),
        broker=dict(broker),
    )


def _task_report(task: DemoTask, exchanges: Sequence[Exchange]) -> TaskReport:
    own = [exchange for exchange in exchanges if exchange.sample.task == task.name]
    small = sum(isinstance(e.answer, Result) and e.answer.level == 0 for e in own)
    return TaskReport(
        task=task.name,
        pet_kind=task.pet_kind,
        queries=len(own),
        level_0_share=small / max(1, len(own)),
        accuracy=sum(exchange.is_correct for exchange in own) / max(1, len(own)),
        latency_ms=_latency(own),
    )


def _latency(exchanges: Sequence[Exchange]) -> LatencySummary | None:
    steady = [exchange for exchange in exchanges if exchange.is_steady]
    latencies_ms = [e.latency_ms for e in steady if e.latency_ms is not None]
    return summarise(latencies_ms, num_unanswered=len(steady) - len(latencies_ms))


def throughput_qps(exchanges: Sequence[Exchange]) -> float:
    """Return answers per second from the first query sent to the last answer."""
    ends_s = [e.answered_s for e in exchanges if e.answered_s is not None]
    if not ends_s:
        return 0.0
    return len(ends_s) / (max(ends_s) - min(exchange.sent_s for exchange in exchanges))


def as_json(report: DemoReport) -> dict[str, Any]:
    """Return the document of `petstream demo --json`."""
    document = asdict(report)
    document["accuracy"] = {task.task: round(task.accuracy, 4) for task in report.tasks}
    return document


def as_table(report: DemoReport) -> Table:
    """Return the table that the demo ends with."""
    table = Table("task", "PET kind", title="what was answered")
    for heading in ("queries", "by level 0", "accuracy", "p50 ms", "p99 ms"):
        table.add_column(heading, justify="right")
    for task in report.tasks:
        table.add_row(
            task.task,
            task.pet_kind,
            str(task.queries),
            f"{task.level_0_share:.0%}",
            f"{task.accuracy:.1%}",
            *_percentiles(task.latency_ms),
        )
    table.add_section()
    table.add_row(
        "all",
        "",
        str(report.queries),
        f"{sum(t.level_0_share * t.queries for t in report.tasks) / max(1, report.queries):.0%}",
        f"{sum(t.accuracy * t.queries for t in report.tasks) / max(1, report.queries):.1%}",
        *_percentiles(report.latency_ms),
    )
    return table


def _percentiles(latency: LatencySummary | None) -> tuple[str, str]:
    return ("-", "-") if latency is None else (f"{latency.p50:.0f}", f"{latency.p99:.0f}")
