"""The tables for people."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table

from petstream.benchmarks.document import Goal
from petstream.benchmarks.engine.measuring import Measured, ours_is_faster

_HEADINGS = ("median ms", "least ms", "rows/s", "ours is", "MB/task", "differs")


def case_table(cell: Sequence[Measured]) -> Group:
    """Return the table of one case: a row for each system."""
    first = cell[0]
    table = Table(box=None, padding=(0, 1))
    table.add_column("system", no_wrap=True)
    for heading in _HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    for one in cell:
        faster = ours_is_faster(one, cell)
        table.add_row(
            one.system,
            f"{1000 * one.median_s:.1f}",
            f"{1000 * min(one.times_s):.1f}",
            f"{first.case.rows / one.median_s:.1f}",
            "" if faster is None else f"{faster:.2f} x",
            "" if one.bytes_per_task is None else f"{one.bytes_per_task / 1e6:.2f}",
            "" if one.max_difference is None else f"{one.max_difference:.0e}",
        )
    return Group(f"{first.case.label}: {first.case.rows} queries, {first.num_tokens} tokens", table)


def goals_table(goals: Sequence[Goal], vendor: str, missing: Mapping[str, str]) -> Group:
    """Return what was promised and what became of it.

    Args:
        goals: Those that were judged.
        vendor: Whose goals they are.
        missing: Systems that were left out, and the command that builds what they need.
    """
    title = f"Goals on {vendor}"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1))
    for heading in ("goal", "target", "measured", "met", "unit"):
        table.add_column(heading, no_wrap=heading != "unit")
    for goal in goals:
        met = "yes" if goal.met else "NO"
        table.add_row(goal.id, f"{goal.target:g}", f"{goal.value:.2f}", met, goal.unit)
    notes: list[Any] = [
        f"{system} was left out: its environment is not built (`{command}`)"
        for system, command in missing.items()
    ]
    return Group(table, *notes)
