"""How peers batch rows, and run them: a model for each task, or one for all."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from petstream.benchmarks.engine.cases import Rows

Model = TypeVar("Model")


def batches_by_task(rows: Rows, how: str) -> list[list[int]]:
    """Return the numbers of each batch's rows, no two tasks in one batch.

    Args:
        rows: The case's.
        how: `rows`, `sorted-8` or `padded`.
    """
    by_task: dict[int, list[int]] = {}
    for number, task in enumerate(rows.tasks):
        by_task.setdefault(task, []).append(number)
    return [batch for numbers in by_task.values() for batch in batches(rows, numbers, how)]


def batches(rows: Rows, numbers: Sequence[int], how: str) -> list[list[int]]:
    """Cut rows into batches; `how` as in `batches_by_task`."""
    if how == "padded":
        return [list(numbers)]
    ordered = sorted(numbers, key=lambda number: len(rows.token_ids[number]))
    size = {"rows": 1, "sorted-8": 8}[how]
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def padded(rows: Rows, numbers: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return token ids and mask of a batch, each of shape (batch, longest row)."""
    chosen = [rows.token_ids[number] for number in numbers]
    ids = np.zeros((len(chosen), max(map(len, chosen))), np.int64)
    mask = np.zeros_like(ids)
    for row, row_mask, own in zip(ids, mask, chosen, strict=True):
        row[: len(own)] = own
        row_mask[: len(own)] = 1
    return ids, mask


def run_by_task(
    models: Sequence[Model],
    rows: Rows,
    work: Sequence[Sequence[int]],
    infer: Callable[[Model, NDArray[np.int64], NDArray[np.int64]], NDArray[Any]],
) -> NDArray[np.float32]:
    """Run batches one after another, each on its task's model; return the rows' logits.

    Args:
        models: Used by the tasks in turn.
        rows: The case's.
        work: As `batches_by_task` returns it.
        infer: Takes a model, token ids and mask; returns logits, (batch, labels).
    """
    parts = []
    for numbers in work:
        model = models[rows.tasks[numbers[0]] % len(models)]
        parts.append((numbers, infer(model, *padded(rows, numbers))))
    return in_row_order(parts, len(rows.tasks))


def in_row_order(
    parts: Sequence[tuple[Sequence[int], NDArray[Any]]], num_rows: int
) -> NDArray[np.float32]:
    """Put batches' logits, (row numbers, (batch, labels)), into the order of the rows."""
    logits = np.zeros((num_rows, parts[0][1].shape[1]), np.float32)
    for numbers, values in parts:
        logits[list(numbers)] = values
    return logits
