"""What `petstream profile show` says of the figures that workers chose their ways by."""

from collections.abc import Mapping, Sequence

from rich.table import Table

from petstream.output import console
from workers.break_even import NEVER, Gains
from workers.machine_figures import LINEAR, FiguresFile

_BACKENDS = ("compiled-packed", "compiled", "onednn-packed", "onednn", "torch")
_WAYS = ("torch", "compiled")
"""Of an operator."""


def print_figures(found: FiguresFile) -> None:
    """Print which library multiplies what, and by which way operators run."""
    machine = found.machine.get("processor", "an unknown processor")
    versions = ", ".join(f"{k} {v}" for k, v in found.machine.items() if k != "processor")
    console.print(f"[bold]ways chosen[/bold] on {machine} ({versions})", soft_wrap=True)
    products = Table(caption="microseconds a row of one thread; the least is taken")
    products.add_column("shared product")
    for backend in _BACKENDS:
        products.add_column(backend.replace("-", "\n"), justify="right")
    breaks = Table(caption="rows of a task from which the way for many rows is taken")
    breaks.add_column("operator")
    breaks.add_column("rows", justify="right")
    operators = Table(caption="microseconds a row of one thread; the least is taken")
    operators.add_column("operator")
    for way in _WAYS:
        operators.add_column(way, justify="right")
    for name, figures in sorted(found.figures.items()):
        if name.startswith(f"{LINEAR} "):
            products.add_row(name.removeprefix(f"{LINEAR} "), *_cells(figures, _BACKENDS))
        elif set(figures) == set(_WAYS):
            operators.add_row(name, *_cells(figures, _WAYS))
        elif set(figures) == set(Gains._fields):
            breaks.add_row(name, _rows(Gains.of(figures).break_even_rows()))
    for table in (products, operators, breaks):
        console.print(table)


def _cells(us_per_row: Mapping[str, float], ways: Sequence[str]) -> list[str]:
    """Return the time of each way, the least in bold; a way that was not measured has none."""
    least = min(us_per_row.values())
    cells = []
    for way in ways:
        us = us_per_row.get(way)
        if us is None:
            cells.append("-")
        else:
            cells.append(f"[bold]{us:.2f}[/bold]" if us == least else f"{us:.2f}")
    return cells


def _rows(rows: int) -> str:
    return "never" if rows >= NEVER else str(rows)
