"""The shape of the dense kernels' blocks (`gpu_ops/kernels/tile_product.cuh`)."""

from collections.abc import Mapping, Sequence

import torch

from gpu_ops.grouped.launch import div_ceil, require
from gpu_ops.grouped.segments import TILE_ROWS, TileTable

TILE_COLUMNS = 64
"""Outputs of a block, where no other number is named."""
DEEP_COLUMNS: Mapping[int, int] = {16: 16, 64: 64}
"""Rows of a tile -> outputs of a block of a product with a great depth."""
DEEP_SPLITS: Mapping[int, int] = {16: 8, 64: 1}
"""Rows of a tile -> groups of threads that share out that depth."""
MANY_ROWS = 32
"""Tokens of a task from which on a large tile has rows enough."""
BUSY_BLOCKS = 32
"""Blocks of large tiles from which on they are faster, as measured on an H100."""


def tile_rows_for(task_rows: Sequence[int], columns: int, busy_blocks: int) -> int:
    """Return how large the tiles of a batch shall be, one of `TILE_ROWS`.

    Large ones read a task's weight less often; small ones are more blocks, each with more threads.

    Args:
        task_rows: Of each task.
        columns: Outputs of the first product that the tiles are for.
        busy_blocks: From which on large tiles are faster: BUSY_BLOCKS, or an operator's own.
    """
    small, large = TILE_ROWS
    num_blocks = sum(div_ceil(rows, large) for rows in task_rows) * div_ceil(columns, TILE_COLUMNS)
    is_large = max(task_rows) >= MANY_ROWS and num_blocks >= busy_blocks
    return large if is_large else small


def block_threads(columns: int = TILE_COLUMNS, splits: int = 1) -> int:
    """Return the threads of a block (`TileShape` in the kernels' header)."""
    return 2 * columns * splits


def require_tiles(tiles: TileTable, sizes: Sequence[int]) -> None:
    """Check a table that a kernel will read.

    Raises:
        TypeError: If its entries are not int32.
        ValueError: If its shape or the size of its tiles does not fit.
    """
    require(tiles.entries, (None, 3), torch.int32)
    if tiles.tile_rows not in sizes:
        raise ValueError(f"expected tiles of {sizes} rows, got {tiles.tile_rows}")
