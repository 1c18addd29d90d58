"""What the plots of `plot_engine` have in common: frame, caption, colours and ticks."""

import textwrap
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.engine_document import Cell, Document, Point, library_of

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "petstream",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
"""Text stays text, as it is, and no name within a file is drawn by chance."""
METADATA = {"Date": None, "Creator": "benchmarks/plot_engine.py"}

COLOURS = {
    "ours": "#000000",
    "bare": "#888888",
    "seqs": "#0072b2",
    "transformers": "#d55e00",
    "onnxruntime": "#009e73",
    "openvino": "#cc79a7",
    "peft": "#e69f00",
    "peft32": "#56b4e9",
}
"""By library; told apart by people who see few colours, too."""
CAPTION_WIDTH = 205
LINE_INCHES = 0.15


def framed(
    document: Document, cells: Sequence[Cell], title: str, widths: Sequence[int]
) -> tuple[Figure, list[Axes]]:
    """Return a figure with title and caption, and its panels.

    Args:
        document: For the caption.
        cells: What is drawn, for the caption, too.
        title: Of the figure.
        widths: Of the panels, side by side, in shares.
    """
    caption = _caption(document, cells)
    below = LINE_INCHES * (caption.count("\n") + 1) + 0.1
    height = 4.6 + below
    figure = Figure(figsize=(12, height))
    grid = figure.add_gridspec(
        *(1, len(widths)),
        width_ratios=widths,
        left=0.05,
        right=0.99,
        bottom=(below + 0.65) / height,
        top=1 - 0.65 / height,
        wspace=0.14,
    )
    figure.text(0.01, 1 - 0.25 / height, title, fontsize=11, weight="bold")
    figure.text(0.01, 0.1 / height, caption, fontsize=7.5, va="bottom")
    return figure, [figure.add_subplot(grid[0, place]) for place in range(len(widths))]


def _caption(document: Document, cells: Sequence[Cell]) -> str:
    """Return where, on what, how and by which command the cells were measured."""
    case, setup = cells[0].case, document.setup
    libraries = ", ".join(row.library for cell in cells for row in cell.rows.values())
    left_out = ", ".join(setup.left_out)
    sentences = (
        f"{document.device}; {case.dtype}; {case.threads} thread"
        f"{'s' if case.threads > 1 else ''}; medians of {setup.repeats} passes, thin lines from "
        f"the least to the greatest; clock: {setup.clock}; load average at the end "
        f"{document.load_average:.1f}.",
        f"python {document.versions.python}, {', '.join(dict.fromkeys(libraries.split(', ')))}.",
        f"Commit {document.commit}, `{document.command}`."
        + (f" Not built here, so left out: {left_out}." if left_out else ""),
    )
    return "\n".join(textwrap.fill(sentence, CAPTION_WIDTH) for sentence in sentences)


def draw_spread(axes: Axes, points: Sequence[Point], colour: str) -> None:
    """Draw a thin line from the least ratio of a point's passes to the greatest."""
    least, greatest = [min(p.ratios) for p in points], [max(p.ratios) for p in points]
    axes.vlines([p.x for p in points], least, greatest, colors=colour, linewidth=0.8)


def line_style(system: str) -> dict[str, Any]:
    """Return a colour for each library and a dash for each way to batch."""
    library = library_of(system)
    dashes = ":" if library == "bare" else "--" if "-sorted-" in system else "-"
    return {"color": COLOURS[library], "linestyle": dashes, "marker": ".", "linewidth": 1.4}


def set_log_ticks(axes: Axes, ticks: Sequence[float]) -> None:
    """Make the y axis logarithmic, marked where these are within it and nowhere else."""
    axes.set_yscale("log")
    axes.minorticks_off()
    low, high = axes.get_ylim()
    shown = [tick for tick in ticks if low <= tick <= high]
    axes.set_yticks(shown, [f"{tick:g}" for tick in shown])
