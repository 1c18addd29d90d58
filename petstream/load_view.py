"""Load reports for people and for scripts."""

from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from producers.latency import LatencySummary
from producers.load import LoadReport


def report_document(report: LoadReport) -> dict[str, Any]:
    """Return the report as one document; it may hold infinite latencies."""
    document = asdict(report)
    for counts in ("errors", "levels"):
        document[counts] = {str(name): count for name, count in document[counts]}
    document["tasks"] = dict(document["tasks"])
    return document


def report_tables(report: LoadReport) -> RenderableType:
    """Return what was asked and answered, by task."""
    table = Table("task", "answered", "errors", "p50 ms", "p99 ms", "p99.9 ms")
    for task, seen in report.tasks:
        table.add_row(task, str(seen.answered), str(seen.errors), *_columns(seen.latency_ms))
    num_errors = sum(count for _, count in report.errors)
    table.add_section()
    table.add_row("all", str(report.answered), str(num_errors), *_columns(report.latency_ms))
    offered = f", {report.offered_qps:.1f}/s offered" if report.offered_qps is not None else ""
    lines = [
        f"{report.queries} queries, {report.unanswered} unanswered, "
        f"{report.throughput_qps:.1f} answers/s{offered}",
        "by level: " + (", ".join(f"{n} of level {level}" for level, n in report.levels) or "none"),
    ]
    if report.errors:
        lines.append("errors: " + ", ".join(f"{n} {reason}" for reason, n in report.errors))
    return Group(table, *lines)


def _columns(latency_ms: LatencySummary | None) -> list[str]:
    if latency_ms is None:
        return ["", "", ""]
    return [f"{value:.1f}" for value in (latency_ms.p50, latency_ms.p99, latency_ms.p999)]
