"""The shape of the dense kernels' blocks (`gpu_ops/kernels/tile_product.cuh`)."""

from collections.abc import Sequence

import torch

from gpu_ops.grouped.launch import require
from gpu_ops.grouped.segments import TileTable

TILE_COLUMNS = 64
"""Outputs of a block."""
TILE_THREADS = 128
"""Of a block."""


def require_tiles(tiles: TileTable, sizes: Sequence[int]) -> None:
    """Check a table that a kernel will read.

    Raises:
        TypeError: If its entries are not int32.
        ValueError: If its shape or the size of its tiles does not fit.
    """
    require(tiles.entries, (None, 3), torch.int32)
    if tiles.tile_rows not in sizes:
        raise ValueError(f"expected tiles of {sizes} rows, got {tiles.tile_rows}")
