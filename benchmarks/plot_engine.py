"""Draws the curves that `petstream bench engine --curves --json` measured, as SVG.

    python benchmarks/plot_engine.py engine.json docs/plots

Three files for each type of the document: over tasks and queries of each (`tasks-float32.svg`),
over tokens (`tokens-float32.svg`), and what each kind leaves of the bare backbone's speed
(`kinds-float32.svg`). Each says where, on what and by which command it was measured. The same
document gives the same bytes.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.engine_document import (
    Cell,
    Document,
    DocumentError,
    Point,
    cells_of,
    crossings,
    lines,
    read_document,
)
from benchmarks.engine_figure import (
    METADATA,
    STYLE,
    draw_spread,
    framed,
    line_style,
    set_log_ticks,
)
from petstream.benchmarks.engine.cases import Dtype, LengthMix
from petstream.benchmarks.engine.curves import (
    cases_over_kinds,
    cases_over_tasks,
    cases_over_tokens,
)

RATIO_TICKS = (0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10, 15, 20, 30, 50, 100)
SPEED_TICKS = [digit * 10**power for power in range(6) for digit in (1, 1.5, 2, 3, 5, 7)]
LORA_NAME = "LoRA at query and value"
BLUES = ("#deebf7", "#9ecae1", "#4292c6")
"""Of bars, short to long; black figures can be read on each."""


def draw_all(document: Document, folder: Path) -> Iterator[Path]:
    """Write the plots of every type; yield their paths.

    Args:
        document: As `read_document` returns it.
        folder: Made if it is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for dtype in document.dtypes:
        for name, draw in (("tasks", over_tasks), ("tokens", over_tokens), ("kinds", over_kinds)):
            path = folder / f"{name}-{dtype}.svg"
            with mpl.rc_context(STYLE):
                draw(document, dtype).savefig(path, format="svg", metadata=METADATA)
            yield path


def over_tasks(document: Document, dtype: Dtype) -> Figure:
    """Draw speed over tasks, and so over queries of each."""
    cells = cells_of(document, cases_over_tasks(), dtype)
    case = cells[0].case
    ticks = [f"{cell.case.tasks}\n{cell.case.rows // cell.case.tasks}" for cell in cells]
    return _curve(
        document,
        cells,
        f"Over tasks: {case.shape.name}, {case.rows} queries in all, or one each of more tasks, of "
        f"{_mix_name(case.mix)} tokens; {LORA_NAME}",
        ("tasks, and queries of each", "tasks", ticks),
        lambda cell: float(cell.case.tasks),
    )


def over_tokens(document: Document, dtype: Dtype) -> Figure:
    """Draw speed over the length of rows."""
    cells = cells_of(document, cases_over_tokens(), dtype)
    case = cells[0].case
    ticks = [f"{cell.tokens_per_query:.0f}\n{_mix_name(cell.case.mix)}" for cell in cells]
    return _curve(
        document,
        cells,
        f"Over tokens: {case.shape.name}, a query each of {case.tasks} tasks; {LORA_NAME}",
        ("tokens of a query: mean, and what they are drawn from", "tokens", ticks),
        lambda cell: cell.tokens_per_query,
    )


def over_kinds(document: Document, dtype: Dtype) -> Figure:
    """Draw ours as a share of the bare backbone's speed, by kind and length."""
    cells = cells_of(document, cases_over_kinds(), dtype)
    case = cells[0].case
    figure, (axes,) = framed(
        document,
        cells,
        f"Over kinds: {case.shape.name}, {case.tasks} tasks, a query each; ours beside bare, "
        "the same engine and rows without any PET",
        (1,),
    )
    kinds = list(dict.fromkeys(cell.case.pets for cell in cells))
    mixes = list(dict.fromkeys(cell.case.mix for cell in cells))
    for number, mix in enumerate(mixes):
        own = [cell for cell in cells if cell.case.mix == mix]
        middle = 0.27 * (number - 1)
        _draw_bars(axes, lines(own, partial(_bar_place, kinds, middle))["bare"], mix, BLUES[number])
    axes.axhline(1, color="#000000", linewidth=0.8)
    names = ["mix of\nfour" if len(pets) > 1 else pets[0].replace("-", "\n", 1) for pets in kinds]
    axes.set_xticks(range(len(kinds)), names)
    axes.set_ylabel("share of bare's speed")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=len(mixes), frameon=False)
    return figure


def _curve(
    document: Document,
    cells: Sequence[Cell],
    title: str,
    along: tuple[str, str, list[str]],
    x: Callable[[Cell], float],
) -> Figure:
    """Draw queries a second of all systems, and beside it ours' speed over each other's.

    Args:
        document: For the caption.
        cells: In the order of x.
        title: Of the figure.
        along: The x axis's label, its unit in a sentence, and a label for each cell.
        x: A cell's place.
    """
    label, unit, tick_labels = along
    figure, (speeds, ratios, names) = framed(document, cells, title, (6, 6, 5))
    handles = []
    for system, points in lines(cells, x).items():
        style = line_style(system)
        places = [point.x for point in points]
        (line,) = speeds.plot(places, [point.queries_per_s for point in points], **style)
        line.set_label(system if system == "ours" else f"{system}: {verdict(points, unit)}")
        handles.append(line)
        if system != "ours":
            _draw_ratios(ratios, points, style)
    for axes, heading, ticks in (
        (speeds, "queries a second", SPEED_TICKS),
        (ratios, "speed of ours over each other system's", RATIO_TICKS),
    ):
        axes.set_title(heading, loc="left", fontsize=9)
        axes.set_xscale("log")
        axes.set_xticks([x(cell) for cell in cells], tick_labels, fontsize=8)
        axes.set_xlabel(label)
        set_log_ticks(axes, ticks)
    names.axis("off")
    names.legend(handles=handles, loc="center left", frameon=False, fontsize=8)
    return figure


def _draw_ratios(axes: Axes, points: Sequence[Point], style: dict[str, Any]) -> None:
    """Draw a line of ratios with its spread, the line at 1, and a dot where they cross."""
    axes.plot([point.x for point in points], [point.ratio for point in points], **style)
    draw_spread(axes, points, style["color"])
    axes.axhline(1, color="#000000", linewidth=0.8)
    at = crossings(points)
    axes.plot(at, [1] * len(at), "o", color=style["color"])


def _draw_bars(axes: Axes, points: Sequence[Point], mix: LengthMix, colour: str) -> None:
    """Draw the shares of all kinds at one mix of lengths, with their spread and figures."""
    shares = [point.ratio for point in points]
    label = f"{_mix_name(mix)} tokens"
    bars = axes.bar([point.x for point in points], shares, 0.25, color=colour, label=label)
    draw_spread(axes, points, "#000000")
    axes.bar_label(bars, [f"{share:.2f}" for share in shares], label_type="center", fontsize=7)


def _bar_place(kinds: Sequence[tuple[str, ...]], middle: float, cell: Cell) -> float:
    """Return where a kind's bar stands: kinds at whole numbers, lengths side by side."""
    return kinds.index(cell.case.pets) + middle


def verdict(points: Sequence[Point], unit: str) -> str:
    """Return in words where ours is faster; by the medians, however near to 1 they are."""
    at = crossings(points)
    if not at:
        return "ours faster throughout" if points[0].ratio >= 1 else "ours slower throughout"
    places = ", ".join(f"{x:.0f}" for x in at)
    if len(at) > 1:
        return f"even at {places} {unit}"
    return f"ours faster {'above' if points[-1].ratio >= 1 else 'below'} {places} {unit}"


def _mix_name(mix: LengthMix) -> str:
    return f"{mix.distribution[0].upper()}({mix.first}, {mix.second})"


def main() -> None:
    """Draw the plots of a document, and name them."""
    parser = argparse.ArgumentParser(
        description="Draws the curves that `petstream bench engine --curves --json` measured."
    )
    parser.add_argument("document", type=Path, help="the JSON document")
    parser.add_argument("folder", type=Path, help="where the SVG files go")
    arguments = parser.parse_args()
    try:
        for path in draw_all(read_document(arguments.document), arguments.folder):
            print(path)
    except (DocumentError, OSError) as error:  # no room, or no folder of that name
        sys.exit(f"plot_engine: {error}")


if __name__ == "__main__":
    main()
