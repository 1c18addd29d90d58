"""Which rows a task is compared on, and its levels compared one by one."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from petstream.query_file import QueryFileError, read_queries
from petstream.sample_texts import SAMPLE_TEXTS
from tasks.artifact import Artifact
from tasks.bfloat16_record import LevelComparison
from tasks.description import TaskDescription
from workers.backbone_store import find

if TYPE_CHECKING:
    from workers.local_level import LocalLevel, Text

ROWS_FILE = "sample.jsonl"
"""Beside a task's description: rows such as it is asked."""
MAX_ROWS = 64


class SampleRowsError(ValueError):
    """Rows that a task cannot be compared on; the message says what to do."""


@dataclass(frozen=True, slots=True)
class SampleRows:
    """What a task is compared on."""

    texts: "Sequence[Text]"
    origin: str
    """The file's name, or `built-in`."""


def sample_rows(task: TaskDescription, folder: Path, rows_file: Path | None) -> SampleRows:
    """Return at most `MAX_ROWS` rows: of the file, of the task's own, or built-in ones.

    Args:
        task: What will answer them.
        folder: The task's; its `ROWS_FILE` is read if `rows_file` is None.
        rows_file: JSON lines with `text` and, of a pair, `text_pair`; other fields do not count.

    Raises:
        SampleRowsError: If the file has no rows, or not such that the task takes.
    """
    path = folder / ROWS_FILE if rows_file is None else rows_file
    if rows_file is None and not path.is_file():
        built_in: Sequence[Text] = SAMPLE_TEXTS
        if task.takes_pair:
            built_in = list(pairwise(SAMPLE_TEXTS))
        return SampleRows(built_in[:MAX_ROWS], "built-in")
    try:
        with path.open(encoding="utf-8") as lines:
            queries = list(read_queries(lines, task=task.name, ignore_unknown=True))[:MAX_ROWS]
    except (OSError, UnicodeDecodeError, QueryFileError) as error:
        raise SampleRowsError(f"{path}: {error}: give a file of rows with --rows") from error
    if not queries:
        raise SampleRowsError(f"{path} has no rows: give a file with some with --rows")
    if any((query.text_pair is not None) != task.takes_pair for query in queries):
        wants = "pairs: text and text_pair" if task.takes_pair else "single texts: text alone"
        raise SampleRowsError(f"{path}: {task.name} takes {wants}")
    texts = [q.text if q.text_pair is None else (q.text, q.text_pair) for q in queries]
    return SampleRows(texts, path.name)


class Bfloat16Check:
    """Compares tasks, each backbone loaded once. A context manager.

    Args:
        models_dir: The backbones of this machine.
        figures_file: Where this machine's figures are kept.
    """

    def __init__(self, models_dir: Path, figures_file: Path) -> None:
        self._models_dir = models_dir
        self._figures_file = figures_file
        self._locals: dict[str, LocalLevel] = {}

    def __enter__(self) -> "Bfloat16Check":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for local in self._locals.values():
            local.close()

    def compare(self, artifact: Artifact, rows: SampleRows) -> list[LevelComparison]:
        """Compare every level of a task.

        Raises:
            ModuleNotFoundError: If the engine is not installed.
            BackboneError: If a level's backbone is not there.
            TaskError: If a level is not valid.
            RowError: If a row cannot be run.
        """
        from workers.bfloat16_comparison import compare

        return [
            compare(
                self._local(level.backbone.name), artifact, level.level, rows.texts, rows.origin
            )
            for level in artifact.description.levels
        ]

    def _local(self, backbone: str) -> "LocalLevel":
        from workers.local_level import LocalLevel  # torch takes seconds to import

        if backbone not in self._locals:
            self._locals[backbone] = LocalLevel(
                find(backbone, self._models_dir),
                precisions=("float32", "bfloat16"),
                figures_file=self._figures_file,
            )
        return self._locals[backbone]
