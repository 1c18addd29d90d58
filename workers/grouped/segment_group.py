"""Which tokens of a batch are whose, as kernels read it, for segments that need the same operators.

    token_slots     a slot for each token of the batch
    tiles           slot, first token, number of tokens, for each tile

are the tables of `gpu_ops.grouped.segments`. The places in them are those of the segments, whatever
pool the slots are of, so that they are worked out once for all operators of a group.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gpu_ops.grouped.segments import NO_SLOT
from gpu_ops.grouped.tiles import tile_rows_for
from workers.grouped.pass_sizes import PassSizes
from workers.packed_batch import Segment
from workers.power_of_two import power_of_two

FEWEST_TILES = 32
"""Of a table in a pass that is captured."""


class SegmentGroup:
    """Segments of one batch; of their tasks it keeps nothing, as captured passes keep groups."""

    def __init__(
        self, segments: Sequence[Segment], num_tokens: int, sizes: PassSizes | None
    ) -> None:
        """Take them as a group.

        Args:
            segments: Ascending.
            num_tokens: Of the batch, with padding.
            sizes: What tables shall have room for; None: for these segments.
        """
        self.nums_tokens = [segment.tokens.num_rows for segment in segments]
        self._spans = [segment.tokens for segment in segments]
        self._num_tokens = num_tokens if sizes is None else sizes.num_tokens
        self._has_room = sizes is not None
        self._tile_rows: dict[tuple[int, int], int] = {}
        self._tiles: dict[int, NDArray[np.int32]] = {}

    def token_slots(self, slots: Sequence[int]) -> NDArray[np.int32]:
        """Return the slot of each token of the batch, NO_SLOT for those of other segments.

        Args:
            slots: Of each segment.

        Returns:
            Shape (num_tokens,).
        """
        table = np.full(self._num_tokens, NO_SLOT, dtype=np.int32)
        for (start, end), slot in zip(self._spans, slots, strict=True):
            table[start:end] = slot
        return table

    def tile_rows(self, columns: int, busy_blocks: int) -> int:
        """Return how large tiles shall be (`tile_rows_for`).

        Args:
            columns: Outputs of the first product that they are for.
            busy_blocks: From which on large ones are faster.
        """
        key = columns, busy_blocks
        if key not in self._tile_rows:
            self._tile_rows[key] = tile_rows_for(self.nums_tokens, columns, busy_blocks)
        return self._tile_rows[key]

    def tiles(self, slots: Sequence[int], tile_rows: int) -> NDArray[np.int32]:
        """Return the tiles of the segments; a pass with sizes has some that are not used.

        Args:
            slots: Of each segment.
            tile_rows: Tokens of a tile at most; a segment's last tile may have fewer.

        Returns:
            Shape (num_tiles, 3).
        """
        if tile_rows not in self._tiles:
            self._tiles[tile_rows] = self._cut(tile_rows)
        tiles = self._tiles[tile_rows].copy()
        tiles[:, 0] = np.array([*slots, NO_SLOT])[tiles[:, 0]]
        return tiles

    def _cut(self, tile_rows: int) -> NDArray[np.int32]:
        """Return tiles with the segment's number among these in place of a slot, -1 of unused."""
        lens = np.array(self.nums_tokens)
        starts = np.array([span.start for span in self._spans])
        nums_tiles = -(-lens // tile_rows)
        numbers = np.repeat(np.arange(len(lens)), nums_tiles)
        used = len(numbers)
        tiles_before = np.cumsum(nums_tiles) - nums_tiles
        firsts = tile_rows * np.arange(used) + (starts - tile_rows * tiles_before)[numbers]
        # For other batches too; a block without a tile costs little, but not nothing.
        num_tiles = power_of_two(used, FEWEST_TILES) if self._has_room else used
        tiles = np.zeros((num_tiles, 3), dtype=np.int32)
        tiles[:used, 0], tiles[used:, 0] = numbers, -1
        tiles[:used, 1] = firsts
        tiles[:used, 2] = np.minimum(tile_rows, (starts + lens)[numbers] - firsts)
        return tiles
