"""Rows of several tasks laid end to end, without padding between them.

    rows        t1 r1 | t1 r2   | t2 r3 | t2 r4 ...
    tokens      0 1 2 | 3 4 5 6 | 7 8   | ...        cu_seqlens = [0, 3, 7, 9, ...]
    segments    `-- task t1 ---'`-- task t2 --- ...

The rows of one task stand together, so that each op of a task runs once, and tasks of one kind
stand side by side. A few tokens of padding may follow the last row: the libraries below build
one kernel per row count, and rounding lets batches share them. Rows of a task with a prompt hold
its virtual tokens too, which are tokens of the batch but not of the row's own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
    """Shape (num_tokens,), the special ones included."""


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """The rows of one task within a batch."""

    task: LoadedTask
    tokens: Span
    rows: Span
    own_tokens: Span
    """Among the own tokens of all rows."""
    row_lens: list[int]
    """Tokens of each row, virtual ones included."""
    virtual_tokens: torch.Tensor | None
    """Shape (num_rows, num_virtual), int64: where the virtual tokens of each row stand."""


@dataclass(frozen=True, slots=True, eq=False)
class PackedBatch:
    """The input of one pass over the backbone."""

    token_ids: torch.Tensor
    """Shape (num_tokens,), int64, padding at the end included."""
    places: torch.Tensor
    """Shape (num_tokens,), int64: rows of the backbone's table of token types and positions."""
    row_lens: list[int]
    """Virtual tokens included."""
    own_lens: list[int]
    own_tokens: torch.Tensor | None
    """Shape (num_own,), int64: where the rows' own tokens stand. None: all are."""
    first_tokens: list[int]
    """Of each row, where the token stands that `cls` pooling reads."""
    segments: list[Segment]
    row_numbers: list[int]
    """Of each row, its number among the rows that were asked for."""


def check_row(row: EngineRow, shape: BackboneShape) -> None:
    """Refuse a row that would read past a table of the backbone.

    Raises:
        RowError: If it is empty, longer than the backbone has positions, or has a token id
            outside the vocabulary.
    """
    ids = row.token_ids
    num_positions = shape.max_positions - row.task.level.pet.reserved_positions()
    if ids.ndim != 1 or not 1 <= len(ids) <= num_positions:
        raise RowError(
            f"expected 1 to {num_positions} tokens in one dimension, got shape {ids.shape}"
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


def pack(
    rows: Sequence[EngineRow],
    numbers: Sequence[int],
    shape: BackboneShape,
    num_token_types: int,
) -> PackedBatch:
    """Lay out the rows with the given numbers, which are in execution order.

    Args:
        rows: All rows that were asked for.
        numbers: At least one.
        shape: Of the backbone.
        num_token_types: With one, the texts of a pair are not told apart.
    """
    laid_out = [_lay_out(rows[number], shape, num_token_types) for number in numbers]
    row_lens = [len(row.token_ids) for row in laid_out]
    starts = [0, *accumulate(row_lens)]
    num_padding = -starts[-1] % ROUND_TOKENS_TO
    token_ids = np.zeros(starts[-1] + num_padding, dtype=np.int64)
    places = np.zeros_like(token_ids)
    for row, start, end in zip(laid_out, starts, starts[1:], strict=False):
        token_ids[start:end] = row.token_ids
        places[start:end] = row.places
    own_tokens = None
    if any(len(row.virtual) for row in laid_out):
        own = [start + row.own for row, start in zip(laid_out, starts, strict=False)]
        own_tokens = torch.from_numpy(np.concatenate(own))
    return PackedBatch(
        token_ids=torch.from_numpy(token_ids),
        places=torch.from_numpy(places),
        row_lens=row_lens,
        own_lens=[len(row.own) for row in laid_out],
        own_tokens=own_tokens,
        first_tokens=[start + row.first for row, start in zip(laid_out, starts, strict=False)],
        segments=_segments([rows[number].task for number in numbers], laid_out),
        row_numbers=list(numbers),
    )


def batch_on(batch: PackedBatch, device: torch.device) -> PackedBatch:
    """Return a batch with its tensors on a device; its tasks stay where they are."""

    def moved(tensor: torch.Tensor | None) -> torch.Tensor | None:
        return None if tensor is None else tensor.to(device)

    return replace(
        batch,
        token_ids=batch.token_ids.to(device),
        places=batch.places.to(device),
        own_tokens=moved(batch.own_tokens),
        segments=[
            replace(segment, virtual_tokens=moved(segment.virtual_tokens))
            for segment in batch.segments
        ],
    )


@dataclass(frozen=True, slots=True, eq=False)
class _LaidOutRow:
    """One row with its virtual tokens."""

    token_ids: NDArray[np.int64]
    places: NDArray[np.int64]
    own: NDArray[np.int64]
    """Where its own tokens stand, from its beginning."""
    virtual: NDArray[np.int64]
    """Where its virtual tokens stand."""
    first: int
    """Where the token stands that `cls` pooling reads."""


_NONE = np.zeros(0, dtype=np.int64)


def _lay_out(row: EngineRow, shape: BackboneShape, num_token_types: int) -> _LaidOutRow:
    own_len = len(row.token_ids)
    own = np.arange(own_len)
    ops = row.task.ops.embeddings
    shift: int | NDArray[np.int64] = 0 if ops is None else ops.position_offset
    if num_token_types > 1 and row.task.description.takes_pair:
        shift = shift + shape.max_positions * token_types(row.token_ids)
    if ops is None or ops.prompt is None:
        return _LaidOutRow(row.token_ids, own + shift, own, _NONE, 0)
    prompt = ops.prompt
    num_virtual = len(prompt.vectors)
    num_before = {"first": 0, "after_cls": 1, "last": own_len}[prompt.place]
    virtual = num_before + np.arange(num_virtual)
    own = np.where(own < num_before, own, own + num_virtual)
    token_ids = np.zeros(own_len + num_virtual, dtype=np.int64)
    token_ids[own] = row.token_ids
    places = np.zeros_like(token_ids)
    if prompt.enters == "words":
        places[virtual] = virtual
        places[own] = own
    else:
        places[own] = np.arange(own_len)
    places[own] += shift
    return _LaidOutRow(token_ids, places, own, virtual, int(own[0]) if prompt.pools_own else 0)


def token_types(pair_ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return 0 for `[CLS] first [SEP]` and 1 for `second [SEP]` (Devlin et al. 2019, figure 2).

    Only families whose pairs are of this form have a second type: see `BackboneConfig`.
    The row's last token is the [SEP] of its model, so no tokenizer is needed to find the first.

    Args:
        pair_ids: Shape (num_tokens,), a pair with its special tokens.
    """
    is_separator = pair_ids == pair_ids[-1]
    first_separator = int(is_separator.argmax())
    return (np.arange(len(pair_ids)) > first_separator).astype(np.int64)


def _segments(tasks: Sequence[LoadedTask], rows: Sequence[_LaidOutRow]) -> list[Segment]:
    segments: list[Segment] = []
    first_row = token = own_token = 0
    for _, same in groupby(tasks, key=id):
        members = list(same)
        end_row = first_row + len(members)
        of_task = rows[first_row:end_row]
        row_lens = [len(row.token_ids) for row in of_task]
        end, own_end = token + sum(row_lens), own_token + sum(len(row.own) for row in of_task)
        virtual = None
        if len(of_task[0].virtual):
            starts = accumulate(row_lens[:-1], initial=token)
            virtual = np.stack(
                [start + row.virtual for start, row in zip(starts, of_task, strict=True)]
            )
        segments.append(
            Segment(
                task=members[0],
                tokens=Span(token, end),
                rows=Span(first_row, end_row),
                own_tokens=Span(own_token, own_end),
                row_lens=row_lens,
                virtual_tokens=None if virtual is None else torch.from_numpy(virtual),
            )
        )
        first_row, token, own_token = end_row, end, own_end
    return segments
