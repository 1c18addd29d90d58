"""Labelled rows from a file: JSONL or CSV, checked line by line.

JSONL: {"text", "text_pair"?} with one of "label" (single label), "labels" (multi-label; may be
empty; for tagging one tag for each word between spaces), "value" (regression).
CSV: a header with `text` and `label`, `category` or `value`; optional `text_pair`.
"""

import csv
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from messages.task_event import TaskKind
from tasks.training.errors import BadRows, NotTrainable

_LABEL_FIELDS = ("label", "category", "labels", "value")
_KIND_OF_FIELD: dict[str, TaskKind] = {
    "label": "single_label",
    "category": "single_label",
    "labels": "multi_label",
    "value": "regression",
}
MAX_LINE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class LabelledRow:
    """One text and what is true of it."""

    text: str
    text_pair: str | None
    labels: tuple[str, ...]
    """Single label: one. Multi-label: any number. Tagging: one for each word. Regression: none."""
    value: float = 0.0
    """Regression only."""


@dataclass(frozen=True, slots=True)
class LabelledRows:
    """The rows of a file, all of one kind."""

    kind: TaskKind
    rows: tuple[LabelledRow, ...]
    origin: str
    """Name of the file, for messages."""

    @property
    def takes_pair(self) -> bool:
        """Whether the rows are pairs of texts."""
        return self.rows[0].text_pair is not None

    def label_set(self) -> tuple[str, ...]:
        """Return all labels, sorted; a regression's only label is `value`.

        Raises:
            BadRows: If there is nothing to tell apart.
        """
        if self.kind == "regression":
            if len({row.value for row in self.rows}) < 2:
                raise BadRows(f"{self.origin}: every value is the same: nothing can be learned")
            return ("value",)
        labels = sorted({label for row in self.rows for label in row.labels})
        least = 1 if self.kind == "multi_label" else 2
        if len(labels) < least:
            raise BadRows(
                f"{self.origin}: {len(labels)} label(s), {self.kind} needs at least {least}: "
                f"add rows of other labels"
            )
        return tuple(labels)

    def check_labels_known(self, labels: Sequence[str]) -> None:
        """Check that no row has a label that training does not know.

        Raises:
            BadRows: If one has.
        """
        if self.kind == "regression":
            return
        known = frozenset(labels)
        for number, row in enumerate(self.rows, 1):
            for label in row.labels:
                if label not in known:
                    raise BadRows(
                        f"{self.origin}, row {number}: label {label[:60]!r} is not among the "
                        f"{len(known)} labels trained on: correct it or add training rows for it"
                    )


def read_rows(path: Path, kind: TaskKind | None = None) -> LabelledRows:
    """Read a `.jsonl` or `.csv` file.

    Args:
        path: The file; UTF-8.
        kind: Of the task; None infers it from the label's field. Tagging must be named, because
            its rows look like those of multi-label.

    Raises:
        NotTrainable: If the task is an embedding, of which no row is labelled.
        BadRows: If the file cannot be read or a row is not of the documented form.
    """
    if kind == "embedding":
        raise NotTrainable(
            "an embedding is neither trained nor calibrated here: train it with "
            "sentence-transformers or PEFT and use `petstream tasks import`"
        )
    if path.suffix not in (".jsonl", ".csv"):
        raise BadRows(f"{path.name}: neither .jsonl nor .csv: convert it to one of them")
    records = _read_jsonl(path) if path.suffix == ".jsonl" else _read_csv(path)
    rows: list[LabelledRow] = []
    try:
        for where, record in records:
            found = _kind_of(record, where)
            if kind is None:
                kind = found
            _check_kind(kind, found, where)
            rows.append(_to_row(record, kind, where))
    except FileNotFoundError:
        raise BadRows(f"no file {path}: give a .jsonl or .csv with labelled rows") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadRows(f"{path.name} cannot be read as UTF-8 text: {error}") from error
    if kind is None or not rows:
        raise BadRows(f"{path.name}: no rows: give at least one labelled row a line")
    if len({row.text_pair is None for row in rows}) > 1:
        raise BadRows(f"{path.name}: some rows have text_pair and some have not: give all or none")
    return LabelledRows(kind, tuple(rows), path.name)


def _read_jsonl(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            where = f"{path.name}, line {number}"
            if not line.strip():
                continue
            if len(line) > MAX_LINE_BYTES:
                raise BadRows(f"{where}: longer than {MAX_LINE_BYTES} bytes")
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise BadRows(f"{where}: not JSON ({error})"[:200]) from error
            if not isinstance(record, dict):
                raise BadRows(f"{where}: not a JSON object")
            yield where, record


def _read_csv(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        for record in reader:
            where = f"{path.name}, line {reader.line_num}"
            if None in record or None in record.values():
                raise BadRows(f"{where}: not as many columns as the header")
            if "value" in record:
                record["value"] = _number(record["value"], where)
            yield where, record


def _number(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise BadRows(f"{where}: value {text[:40]!r} is not a number") from None


def _kind_of(record: dict[str, Any], where: str) -> TaskKind:
    if "text" not in record:
        raise BadRows(f"{where}: no column text: name the text's column `text`")
    found = [field for field in _LABEL_FIELDS if field in record]
    if len(found) != 1:
        raise BadRows(
            f"{where}: {'no' if not found else 'more than one'} label: give exactly one of "
            f"label, labels, value"
        )
    return _KIND_OF_FIELD[found[0]]


def _check_kind(kind: TaskKind, found: TaskKind, where: str) -> None:
    # Tags are written as `labels` too.
    if found != ("multi_label" if kind == "tagging" else kind):
        raise BadRows(f"{where}: a row of kind {found} among rows of kind {kind}")


def _to_row(record: dict[str, Any], kind: TaskKind, where: str) -> LabelledRow:
    text = _string(record["text"], "text", where)
    pair = record.get("text_pair")
    text_pair = None if pair is None else _string(pair, "text_pair", where)
    if kind == "regression":
        value = record["value"]
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BadRows(f"{where}: value is not a number")
        if not math.isfinite(value):
            raise BadRows(f"{where}: value is not finite")
        return LabelledRow(text, text_pair, (), float(value))
    if kind == "single_label":
        label = record["label"] if "label" in record else record["category"]
        return LabelledRow(text, text_pair, (_string(label, "label", where),))
    labels = record["labels"]
    if not isinstance(labels, list):
        raise BadRows(f"{where}: labels is not a list")
    names = tuple(_string(label, "labels", where) for label in labels)
    if kind == "tagging" and len(names) != len(text.split()):
        raise BadRows(f"{where}: {len(names)} tags for {len(text.split())} words")
    return LabelledRow(text, text_pair, names)


def _string(value: Any, field: str, where: str) -> str:  # noqa: ANN401 - whatever json gives
    if not isinstance(value, str) or not value.strip():
        raise BadRows(f"{where}: {field} is empty or not a string")
    return value
