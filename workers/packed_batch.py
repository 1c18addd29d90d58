"""Rows of several tasks laid end to end, without padding between them.

    rows        t1 r1 | t1 r2   | t2 r3 | t2 r4 ...
    tokens      0 1 2 | 3 4 5 6 | 7 8   | ...        cu_seqlens = [0, 3, 7, 9, ...]
    segments    `-- task t1 ---'`-- task t2 --- ...

The rows of one task stand together, so that each op of a task runs once, and tasks of one kind
stand side by side. A few tokens of padding may follow the last row: the libraries below build
one kernel per row count, and rounding lets batches share them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby

import numpy as np
import torch
from numpy.typing import NDArray

from gpu_ops.spans import Span
from tasks.backbone_shape import BackboneShape
from workers.errors import RowError
from workers.loaded_task import LoadedTask

ROUND_TOKENS_TO = 16


@dataclass(frozen=True, slots=True, eq=False)
class EngineRow:
    """One row to run."""

    task: LoadedTask
    token_ids: NDArray[np.int64]
    """Shape (num_tokens,), [CLS] and [SEP] included."""


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """The rows of one task within a batch."""

    task: LoadedTask
    tokens: Span
    rows: Span


@dataclass(frozen=True, slots=True, eq=False)
class PackedBatch:
    """The input of one pass over the backbone."""

    token_ids: torch.Tensor
    """Shape (num_tokens,), int64, padding at the end included."""
    places: torch.Tensor
    """Shape (num_tokens,), int64: rows of the backbone's table of token types and positions."""
    row_lens: list[int]
    segments: list[Segment]
    row_numbers: list[int]
    """Of each row, its number among the rows that were asked for."""

    @property
    def cu_seqlens(self) -> list[int]:
        """Where each row begins, and where the last one ends."""
        return [0, *accumulate(self.row_lens)]


def check_row(row: EngineRow, shape: BackboneShape) -> None:
    """Refuse a row that would read past a table of the backbone.

    Raises:
        RowError: If it is empty, longer than the backbone has positions, or has a token id
            outside the vocabulary.
    """
    ids = row.token_ids
    if ids.ndim != 1 or not 1 <= len(ids) <= shape.max_positions:
        raise RowError(
            f"expected 1 to {shape.max_positions} tokens in one dimension, got shape {ids.shape}"
        )
    if ids.min() < 0 or ids.max() >= shape.vocab_size:
        raise RowError(
            f"expected token ids in 0..{shape.vocab_size - 1}, got {ids.min()}..{ids.max()}"
        )


def execution_order(rows: Sequence[EngineRow]) -> list[int]:
    """Return the numbers of the rows by kind of PET, then task; the same for equal rows."""

    def key(number: int) -> tuple[str, str, int, int]:
        task = rows[number].task.description
        return rows[number].task.level.pet.kind, task.name, task.revision, number

    return sorted(range(len(rows)), key=key)


def pack(rows: Sequence[EngineRow], numbers: Sequence[int], shape: BackboneShape) -> PackedBatch:
    """Lay out the rows with the given numbers, which are in execution order.

    Args:
        rows: All rows that were asked for.
        numbers: At least one.
        shape: Of the backbone.
    """
    row_lens = [len(rows[number].token_ids) for number in numbers]
    num_tokens = sum(row_lens)
    num_padding = -num_tokens % ROUND_TOKENS_TO
    token_ids = np.zeros(num_tokens + num_padding, dtype=np.int64)
    places = np.zeros_like(token_ids)
    starts = [0, *accumulate(row_lens)]
    for number, start, end in zip(numbers, starts, starts[1:], strict=False):
        row = rows[number]
        token_ids[start:end] = row.token_ids
        places[start:end] = np.arange(end - start)
        if row.task.description.takes_pair:
            places[start:end] += shape.max_positions * token_types(row.token_ids)
    return PackedBatch(
        token_ids=torch.from_numpy(token_ids),
        places=torch.from_numpy(places),
        row_lens=row_lens,
        segments=_segments([rows[number].task for number in numbers], starts),
        row_numbers=list(numbers),
    )


def token_types(pair_ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return 0 for `[CLS] first [SEP]` and 1 for `second [SEP]` (Devlin et al. 2019, figure 2).

    The row's last token is the [SEP] of its model, so no tokenizer is needed to find the first.

    Args:
        pair_ids: Shape (num_tokens,), a pair with its special tokens.
    """
    is_separator = pair_ids == pair_ids[-1]
    first_separator = int(is_separator.argmax())
    return (np.arange(len(pair_ids)) > first_separator).astype(np.int64)


def _segments(tasks: Sequence[LoadedTask], starts: Sequence[int]) -> list[Segment]:
    segments: list[Segment] = []
    row = 0
    for _, same in groupby(tasks, key=id):
        members = list(same)
        end = row + len(members)
        segments.append(Segment(members[0], Span(starts[row], starts[end]), Span(row, end)))
        row = end
    return segments
