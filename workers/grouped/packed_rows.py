"""Where the rows of a batch lie, as attention on a device reads it: made once for all layers."""

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import torch

from gpu_ops.upload import upload
from workers.grouped.batch_tables import BatchTables
from workers.grouped.pass_sizes import PassSizes

RECTANGLE_TOKENS = 1 << 15
"""Of a rectangle, padding included: twice a pass (`MAX_PASS_TOKENS`). A bias of scores for each
head and pair of tokens is what takes most: 0.4 GB of 512 tokens and 12 heads in a two-byte type."""


class Rectangle(NamedTuple):
    """Some rows side by side, padded to the longest of them."""

    numbers: Sequence[int]
    """Of its rows."""
    tokens: torch.Tensor
    """Shape (rows, longest), int64: where each token stands, for padding one past the last."""
    is_token: torch.Tensor
    """Shape (rows, longest), bool."""
    from_rectangle: torch.Tensor
    """Shape (num_tokens,), int64: where its tokens stand in it, read row by row."""
    to_packed: torch.Tensor
    """Shape (num_tokens,), int64: where they stand in the batch."""


class PackedRows:
    """Tables of one batch; those that nothing reads are not made."""

    def __init__(
        self,
        row_lens: Sequence[int],
        num_tokens: int,
        device: torch.device,
        sizes: PassSizes | None = None,
        tables: BatchTables | None = None,
    ) -> None:
        """Make none yet, but for those that go with a batch's other tables.

        Args:
            row_lens: Tokens of each row, in order.
            num_tokens: Those of padding behind the last row included.
            device: Where the tables shall be.
            sizes: What the offsets have room for; None: for these rows.
            tables: Where the offsets shall be, if there are sizes.
        """
        self.sizes = sizes
        self._tables = tables
        if sizes is not None and tables is not None:
            # Rows that are not there have no tokens.
            offsets = np.full(sizes.num_rows + 1, sum(row_lens), dtype=np.int32)
            offsets[: len(row_lens)] = np.cumsum([0, *row_lens[:-1]])
            self._number = tables.add(offsets)
        num_padding = num_tokens - sum(row_lens)
        self._row_lens = list(row_lens)
        self._num_tokens = num_tokens
        self._device = device
        self._lens = [*row_lens, num_padding] if num_padding else self._row_lens
        self._offsets: torch.Tensor | None = None
        self._rectangles: list[Rectangle] | None = None

    @property
    def longest(self) -> int:
        """Tokens of the longest row that there is room for; padding counts as one."""
        return max(self._lens) if self.sizes is None else self.sizes.longest

    def offsets(self) -> torch.Tensor:
        """Return where rows begin, and the last one ends, int32; padding counts as a row."""
        if self._tables is not None:
            return self._tables[self._number]
        if self._offsets is None:
            ends = [0, *accumulate(self._lens)]
            self._offsets = upload(torch.tensor(ends, dtype=torch.int32), self._device)
        return self._offsets

    def rectangles(self) -> list[Rectangle]:
        """Return the rows in rectangles of RECTANGLE_TOKENS at most, but for a single row."""
        if self._rectangles is None:
            groups = alike(self._row_lens, RECTANGLE_TOKENS)
            self._rectangles = [self._rectangle(numbers) for numbers in groups]
        return self._rectangles

    def _rectangle(self, numbers: Sequence[int]) -> Rectangle:
        starts = np.array([0, *accumulate(self._row_lens)])[numbers]
        lens = np.array(self._row_lens)[numbers]
        places = np.arange(lens.max())
        is_token = places < lens[:, None]
        tokens = np.where(is_token, starts[:, None] + places, self._num_tokens)
        tables = (tokens, is_token, np.flatnonzero(is_token), tokens[is_token])
        return Rectangle(
            numbers, *(upload(torch.from_numpy(table), self._device) for table in tables)
        )


def alike(row_lens: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Return the numbers of rows in groups, longest first, whose rectangles are not too large.

    Args:
        row_lens: Tokens of each row.
        max_tokens: Of a group's rectangle; a row of more is a group of its own.
    """
    groups: list[list[int]] = []
    longest = 0
    for number in sorted(range(len(row_lens)), key=lambda number: -row_lens[number]):
        if not groups or (len(groups[-1]) + 1) * longest > max_tokens:
            groups.append([])
            longest = row_lens[number]
        groups[-1].append(number)
    return groups
