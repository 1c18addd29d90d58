"""Reads what `petstream bench engine --curves --json` printed, and puts it along the curves.

It does not draw: `plot_engine` does.
"""

import math
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from petstream.benchmarks.engine.cases import Case, Dtype, in_bfloat16
from petstream.benchmarks.engine.curves import curve_cases

COMMAND = "petstream bench engine --curves --json"


class DocumentError(Exception):
    """A file cannot be drawn: what is wrong with it, and the command that writes one that can."""


class _Part(BaseModel):
    """A document holds more than is drawn."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, allow_inf_nan=False)


class Row(_Part):
    """One system in one case."""

    case: str
    dtype: Dtype
    queries: int = Field(ge=1)
    tokens: int = Field(ge=1)
    system: str
    library: str
    times_s: list[Annotated[float, Field(gt=0)]] = Field(min_length=1)
    queries_per_s: float = Field(gt=0)

    def ratios(self, ours: "Row") -> list[float]:
        """Return how many times as fast ours is, of each pair of passes side by side."""
        return [their / own for their, own in zip(self.times_s, ours.times_s, strict=True)]


class Setup(_Part):
    """How it was measured."""

    repeats: int
    clock: str
    left_out: dict[str, str]
    """System -> the command that builds what it needs."""


class Versions(_Part):
    """Of what is no system; each row names its library's."""

    python: str


class Document(_Part):
    """The whole run."""

    command: str
    commit: str
    device: str
    versions: Versions
    load_average: float
    rows: list[Row]
    setup: Setup

    @model_validator(mode="after")
    def _every_row_has_every_pass(self) -> "Document":
        for row in self.rows:
            if len(row.times_s) != self.setup.repeats:
                raise ValueError(f"{row.system} in {row.case} has not {self.setup.repeats} times")
        return self

    @property
    def dtypes(self) -> list[Dtype]:
        """Return the types that it has curves of."""
        return list(dict.fromkeys(row.dtype for row in self.rows))


@dataclass(frozen=True, slots=True)
class Cell:
    """A case and what was measured of it."""

    case: Case
    rows: Mapping[str, Row]
    """By system."""

    @property
    def tokens_per_query(self) -> float:
        """Return the mean length of its rows."""
        ours = self.rows["ours"]
        return ours.tokens / ours.queries

    def row_of(self, system: str) -> Row | None:
        """Return a system's row, or that of the same library which did the same work.

        Where two ways to batch come to the same batches, a run leaves one of them out.
        """
        library = library_of(system)
        same = (row for name, row in self.rows.items() if library_of(name) == library)
        return self.rows.get(system) or next(same, None)


@dataclass(frozen=True, slots=True)
class Point:
    """A system at one place of a curve."""

    x: float
    queries_per_s: float
    ratios: Sequence[float]
    """How many times as fast ours is, by pass."""

    @property
    def ratio(self) -> float:
        """Return the median over passes side by side."""
        return statistics.median(self.ratios)


def library_of(system: str) -> str:
    """Return what stands before how a system batches."""
    return system.partition("-")[0]


def read_document(path: Path) -> Document:
    """Read a document that has every case of the curves, in each type that it has.

    Raises:
        DocumentError: If it cannot be read, or has not.
    """
    try:
        document = Document.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DocumentError(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the document"
        raise DocumentError(
            f"{path} is not what `{COMMAND}` prints: {place}: {first['msg']}"
        ) from error
    # A part of the curves would be drawn like the whole.
    measured = {row.case for row in document.rows if row.system == "ours"}
    wanted = [case.label for d in document.dtypes or ["float32"] for case in _of(curve_cases(), d)]
    if missing := [label for label in wanted if label not in measured]:
        raise DocumentError(
            f"{path} lacks {len(missing)} of the {len(wanted)} cases of the curves, {missing[0]} "
            f"first: draw what `{COMMAND}` prints"
        )
    return document


def cells_of(document: Document, cases: Sequence[Case], dtype: Dtype) -> list[Cell]:
    """Return what was measured of a curve's cases in a type, libraries of one case left out.

    Args:
        document: As `read_document` returns it.
        cases: Of one curve, in float32.
        dtype: One of the document's.
    """
    chosen = _of(cases, dtype)
    labels = {case.label for case in chosen}
    rows = [row for row in document.rows if row.case in labels]
    places = Counter(library for library, _ in {(library_of(r.system), r.case) for r in rows})
    rows = [row for row in rows if places[library_of(row.system)] > 1]
    return [
        Cell(case, {row.system: row for row in rows if row.case == case.label}) for case in chosen
    ]


def lines(cells: Sequence[Cell], x: Callable[[Cell], float]) -> dict[str, list[Point]]:
    """Return every system's points, in the order of the cells."""
    return {
        system: [
            Point(x(cell), row.queries_per_s, row.ratios(cell.rows["ours"]))
            for cell in cells
            if (row := cell.row_of(system)) is not None
        ]
        for system in dict.fromkeys(system for cell in cells for system in cell.rows)
    }


def crossings(points: Sequence[Point]) -> list[float]:
    """Return each x where a line of ratios crosses 1, straight between points on two log axes."""
    found = []
    for before, after in pairwise(points):
        if (before.ratio < 1) != (after.ratio < 1):
            share = math.log(before.ratio) / math.log(before.ratio / after.ratio)
            found.append(before.x * (after.x / before.x) ** share)
    return found


def _of(cases: Sequence[Case], dtype: Dtype) -> Sequence[Case]:
    return cases if dtype == "float32" else in_bfloat16(cases)
