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
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from gpu_ops.spans import Span
from gpu_ops.upload import upload
from tasks.backbone_shape import BackboneShape
from workers.embedding_ops import PromptVectors
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


def tasks_of(rows: Sequence[EngineRow]) -> dict[int, LoadedTask]:
    """Return each task of the rows once, by its id, in the order in which they come."""
    return {id(row.task): row.task for row in rows}


def check_rows(rows: Sequence[EngineRow], shape: BackboneShape) -> None:
    """Refuse rows that would read past a table of the backbone.

    Args:
        rows: At least one.
        shape: Of the backbone.

    Raises:
        RowError: If one is empty, longer than the backbone has positions, or has a token id
            outside the vocabulary.
    """
    tasks = tasks_of(rows)
    num_positions = {
        key: shape.max_positions - task.level.pet.reserved_positions()
        for key, task in tasks.items()
    }
    for row in rows:
        ids, most = row.token_ids, num_positions[id(row.task)]
        if ids.ndim != 1 or not 1 <= len(ids) <= most:
            raise RowError(f"expected 1 to {most} tokens in one dimension, got shape {ids.shape}")
    ids = np.concatenate([row.token_ids for row in rows])
    outside = ids[(ids < 0) | (ids >= shape.vocab_size)]
    if len(outside):
        raise RowError(f"expected token ids in 0..{shape.vocab_size - 1}, got {outside[0]}")


def execution_order(rows: Sequence[EngineRow]) -> list[int]:
    """Return the numbers of the rows by kind of PET, then task; the same for equal rows."""
    tasks = tasks_of(rows)
    places = {
        key: (task.level.pet.kind, task.description.name, task.description.revision)
        for key, task in tasks.items()
    }
    return sorted(range(len(rows)), key=[places[id(row.task)] for row in rows].__getitem__)


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
    layout = _Layout([rows[number] for number in numbers])
    num_tokens, own_tokens = layout.starts[-1], layout.own_tokens()
    own = slice(num_tokens) if own_tokens is None else own_tokens
    token_ids, places = np.zeros((2, num_tokens + -num_tokens % ROUND_TOKENS_TO), dtype=np.int64)
    token_ids[own] = np.concatenate([row.token_ids for row in layout.rows])
    places[:num_tokens] = layout.places()
    places[own] += layout.shifts(shape, num_token_types)
    return PackedBatch(
        token_ids=torch.from_numpy(token_ids),
        places=torch.from_numpy(places),
        row_lens=layout.row_lens,
        own_lens=layout.own_lens,
        own_tokens=None if own_tokens is None else torch.from_numpy(own_tokens),
        first_tokens=layout.first_tokens(),
        segments=layout.segments(),
        row_numbers=list(numbers),
    )


def batch_on(batch: PackedBatch, device: torch.device) -> PackedBatch:
    """Return a batch with its tensors on a device; its tasks stay where they are."""
    return replace(
        batch,
        token_ids=upload(batch.token_ids, device),
        places=upload(batch.places, device),
        own_tokens=None if batch.own_tokens is None else upload(batch.own_tokens, device),
        segments=[
            segment
            if segment.virtual_tokens is None
            else replace(segment, virtual_tokens=upload(segment.virtual_tokens, device))
            for segment in batch.segments
        ],
    )


class _VirtualTokens(NamedTuple):
    """Those that a prompt adds to one row."""

    number: int
    num_before: int
    """Of the row's own tokens."""
    have_places: bool
    """Among the words they are counted as tokens; behind the embeddings places go on without."""
    first_read: int
    """Where the token stands in the row that `cls` pooling reads."""

    @classmethod
    def of(cls, prompt: PromptVectors, own_len: int) -> "_VirtualTokens":
        number = len(prompt.vectors)
        num_before = {"first": 0, "after_cls": 1, "last": own_len}[prompt.place]
        reads_behind = prompt.pools_own and num_before == 0
        return cls(number, num_before, prompt.enters == "words", number if reads_behind else 0)


class _Layout:
    """Where the tokens of rows stand that are laid end to end."""

    def __init__(self, rows: Sequence[EngineRow]) -> None:
        self.rows = rows
        tasks = [row.task for row in rows]
        firsts = [n for n in range(1, len(tasks)) if tasks[n] is not tasks[n - 1]]
        self._runs = list(pairwise([0, *firsts, len(tasks)]))
        """Where the rows of each task begin and end."""
        self.own_lens = [len(row.token_ids) for row in rows]
        self._virtual: dict[int, _VirtualTokens] = {}
        """Of those rows that have any."""
        for first, end in self._runs:
            ops = tasks[first].ops.embeddings
            if ops is not None and ops.prompt is not None:
                for row in range(first, end):
                    self._virtual[row] = _VirtualTokens.of(ops.prompt, self.own_lens[row])
        self.row_lens = self.own_lens.copy()
        for row, virtual in self._virtual.items():
            self.row_lens[row] += virtual.number
        self.starts = [0, *accumulate(self.row_lens)]
        self._own_starts = [0, *accumulate(self.own_lens)]

    def first_tokens(self) -> list[int]:
        """Return where the token of each row stands that `cls` pooling reads."""
        found = self.starts[:-1]
        for row, virtual in self._virtual.items():
            found[row] += virtual.first_read
        return found

    def own_tokens(self) -> NDArray[np.int64] | None:
        """Return where the rows' own tokens stand; None: all are."""
        if not self._virtual:
            return None
        is_own = np.ones(self.starts[-1], dtype=np.bool_)
        for row, virtual in self._virtual.items():
            first = self.starts[row] + virtual.num_before
            is_own[first : first + virtual.number] = False
        return np.flatnonzero(is_own)

    def places(self) -> NDArray[np.int64]:
        """Return the place of each token in its row, 0 of virtual tokens without one."""
        firsts = np.repeat(self.starts[:-1], self.row_lens)
        places: NDArray[np.int64] = np.arange(self.starts[-1]) - firsts
        for row, (number, num_before, have_places, _) in self._virtual.items():
            if not have_places:
                of_row = places[self.starts[row] : self.starts[row + 1]]
                of_row[num_before : num_before + number] = 0
                of_row[num_before + number :] -= number
        return places

    def shifts(self, shape: BackboneShape, num_token_types: int) -> NDArray[np.int64]:
        """Return what places of own tokens are shifted by: tasks' offsets, second texts' types."""
        starts = self._own_starts
        shifts = np.zeros(starts[-1], dtype=np.int64)
        for first, end in self._runs:
            task = self.rows[first].task
            if task.ops.embeddings is not None:
                shifts[starts[first] : starts[end]] = task.ops.embeddings.position_offset
            if num_token_types > 1 and task.description.takes_pair:
                for row in range(first, end):
                    types = token_types(self.rows[row].token_ids)
                    shifts[starts[row] : starts[row + 1]] += shape.max_positions * types
        return shifts

    def segments(self) -> list[Segment]:
        """Return the rows of each task."""
        starts, own_starts = self.starts, self._own_starts
        return [
            Segment(
                task=self.rows[first].task,
                tokens=Span(starts[first], starts[end]),
                rows=Span(first, end),
                own_tokens=Span(own_starts[first], own_starts[end]),
                row_lens=self.row_lens[first:end],
                virtual_tokens=self._virtual_tokens(first, end),
            )
            for first, end in self._runs
        ]

    def _virtual_tokens(self, first: int, end: int) -> torch.Tensor | None:
        """Return where the virtual tokens of a task's rows stand, shape (num_rows, num_virtual)."""
        if first not in self._virtual:
            return None
        firsts = [self.starts[row] + self._virtual[row].num_before for row in range(first, end)]
        places = np.array(firsts)[:, None] + np.arange(self._virtual[first].number)
        return torch.from_numpy(places)


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
