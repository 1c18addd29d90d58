"""`petstream tasks compare`: whether tasks answer in bfloat16 as they do in float32."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from petstream.bfloat16_check import Bfloat16Check, SampleRowsError, sample_rows
from petstream.output import console, error_console, fail, print_json, warn
from petstream.settings import load_settings
from tasks.artifact import open_artifact
from tasks.bfloat16_record import LevelComparison, comparisons_of, write_record
from tasks.errors import TaskError
from workers.errors import BackboneError, RowError
from workers.processor import this_processor

Rows = Annotated[
    Path | None,
    typer.Option(
        help="JSON lines with `text` (and `text_pair`) to compare on. Default: the folder's "
        "sample.jsonl, or built-in sentences."
    ),
]


def compare_tasks(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR", help="Folders of tasks.")],
    rows: Rows = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Answer sample rows in bfloat16 and in float32, and note in each folder how they differ.

    Workers serve a task in bfloat16 only if it passes: 98 % of the answers are the same, and no
    logit moves by more than a tenth of their standard deviation.

    Example: petstream tasks compare examples/tasks/banking77
    """
    documents = []
    table = Table(
        *("task", "level", "rows", "same", "logits", "confidence", "bfloat16"),
        caption="share of the same answers; largest differences: of a logit over the standard "
        "deviation of all, of the confidence",
    )
    try:
        with comparer(rows) as comparing:
            for folder in folders:
                with error_console.status(f"comparing {folder}"):
                    levels = comparing.levels_of(folder)
                    write_record(folder, levels)
                documents.append({"folder": str(folder), "levels": [*map(as_document, levels)]})
                for level in levels:
                    table.add_row(folder.resolve().name, *_cells(level))
    except (TaskError, BackboneError, RowError, SampleRowsError, OSError) as error:
        fail(f"{type(error).__name__}: {error}")
    except ModuleNotFoundError as error:
        fail(_without_engine(error))
    if as_json:
        print_json({"compared": documents})
    else:
        console.print(table)


@contextmanager
def comparer(rows_file: Path | None) -> "Iterator[Comparer]":
    """Yield what compares tasks on the rows of a file, or on their own."""
    settings = load_settings()
    with Bfloat16Check(settings.models_dir, settings.figures_file) as check:
        yield Comparer(check, rows_file)


class Comparer:
    """Compares the levels of tasks' folders."""

    def __init__(self, check: Bfloat16Check, rows_file: Path | None) -> None:
        self._check = check
        self._rows_file = rows_file

    def levels_of(self, folder: Path) -> list[LevelComparison]:
        """Compare every level.

        Raises:
            TaskError: If the folder is no valid task.
            BackboneError: If a level's backbone is not there.
            SampleRowsError: If there are no rows to compare on.
            RowError: If one of them cannot be run.
            ModuleNotFoundError: If the engine is not installed.
        """
        artifact = open_artifact(folder)
        rows = sample_rows(artifact.description, folder, self._rows_file)
        return self._check.compare(artifact, rows)

    def if_wanted(self, folder: Path, wanted: bool | None) -> list[LevelComparison]:
        """Compare if that is wanted; None is where it pays. Empty: not compared.

        What was not asked for does not end the command where it fails.

        Raises:
            TaskError: If the folder is no valid task.
        """
        if wanted is None:
            is_known = bool(comparisons_of(open_artifact(folder)))
            if is_known or not this_processor().has_bfloat16:
                return []
        elif not wanted:
            return []
        try:
            return self.levels_of(folder)
        except ModuleNotFoundError as error:
            problem = _without_engine(error)
        except (BackboneError, RowError, SampleRowsError) as error:
            problem = f"{type(error).__name__}: {error}"
        if wanted:
            fail(problem)
        warn(f"{folder} is not compared in bfloat16, and served in float32: {problem}")
        return []


def as_document(level: LevelComparison) -> dict[str, Any]:
    """Return a level's comparison as JSON has it, with the verdict."""
    return {**level.model_dump(mode="json"), "passes": level.passes}


def in_words(level: LevelComparison) -> str:
    """Return a level's comparison as one line."""
    _, rows, same, difference, _, verdict = _cells(level)
    return (
        f"level {level.level} in bfloat16 {verdict}: {same} of {rows} answers are the same, "
        f"logits move by {difference} of their deviation"
    )


def _cells(level: LevelComparison) -> tuple[str, ...]:
    share = level.largest_difference / level.deviation if level.deviation else 0.0
    return (
        str(level.level),
        str(level.num_rows),
        f"{level.same_answers:.1%}",
        f"{share:.3f}",
        f"{level.largest_confidence_difference:.4f}",
        "passes" if level.passes else "differs",
    )


def _without_engine(error: ModuleNotFoundError) -> str:
    return f"comparing needs the engine ({error.name} is missing): pip install petstream[worker]"
