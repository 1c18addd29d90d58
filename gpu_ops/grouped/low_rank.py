"""Low-rank updates (LoRA: Hu et al. 2022, section 4.1) of all tasks at once.

Two regimes, named by Punica (Chen et al. 2024, section 4): by rows, where tasks have few rows each
(BGMV), and by tiles of rows that share their task's weight (SGMV).
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from gpu_ops.grouped.kernel_file import KernelFile, Kernels
from gpu_ops.grouped.launch import div_ceil, kernels_for, launch, require, require_packs
from gpu_ops.grouped.operator_schedule import Work
from gpu_ops.grouped.segments import NO_SLOT, TILE_ROWS, Segment, TileTable, listed
from gpu_ops.grouped.tiles import (
    DEEP_COLUMNS,
    DEEP_SPLITS,
    TILE_COLUMNS,
    block_threads,
    require_tiles,
)
from gpu_ops.spans import Span

FILE = KernelFile(
    "low_rank",
    (
        "low_rank_shrink_rows<{T}>",
        "low_rank_expand_rows<{T}>",
        "low_rank_small_tiles<{T}>",
        "low_rank_shrink_tiles<{T}>",
        "low_rank_expand_tiles<{T}>",
    ),
)
THREADS = 128
"""Of a block that works by rows."""
LARGE_TILE_BLOCKS = 256
"""From which on large tiles are faster, measured at rank 8: small ones shrink and expand in one
launch."""
SMALL_TILE_BYTES = 36 << 10
"""Shared memory of a small tile beside its ranks, as in the kernel."""
EXPAND_OUTPUTS = 768
"""Of a block that works by small tiles, as in the kernel."""


class LowRankPool(NamedTuple):
    """The updates of one product. A task of a smaller rank has zeros behind its own."""

    down: torch.Tensor
    """Shape (slots, blocks * rank, in): LoRA's A, of each block of outputs below the last one's."""
    up: torch.Tensor
    """Shape (slots, out, rank): LoRA's B, with its scale alpha / r multiplied in. Outputs are
    `blocks` equal blocks, such as query, key and value."""

    @property
    def blocks(self) -> int:
        """Blocks of outputs with ranks of their own."""
        return self.down.shape[1] // self.up.shape[2]


def add_low_rank_(
    y: torch.Tensor,
    x: torch.Tensor,
    pool: LowRankPool,
    groups: torch.Tensor | TileTable,
    kernels: Kernels | None = None,
) -> None:
    """Add each row's low-rank product.

    Semantics: u = down[s] @ x[r]; y[r, block b] += up[s, block b] @ u[ranks of b], s the slot of
    row r. Rows with slot -1, or in no tile, stay. u is rounded to the dtype.

    Args:
        y: Shape (num_rows, out), the shared product of `x`. Changed in place.
        x: Shape (num_rows, in).
        pool: Of the same dtype.
        groups: The slot of each row, shape (num_rows,), int32; or tiles of rows.
        kernels: Whose; by default CUDA's for CUDA tensors, torch for CPU tensors.

    Raises:
        TypeError: If a dtype does not fit.
        ValueError: If a shape does not fit, or rows are no multiples of 16 bytes.
    """
    (num_rows, num_in), num_out = x.shape, y.shape[1]
    num_slots, ranks, _ = pool.down.shape
    rank, blocks = pool.up.shape[2], pool.blocks
    require(y, (num_rows, num_out), x.dtype)
    require(pool.down, (num_slots, blocks * rank, num_in), x.dtype)
    require(pool.up, (num_slots, num_out, rank), x.dtype)
    if num_out % blocks:
        raise ValueError(f"expected outputs in {blocks} equal blocks, got {num_out}")
    found = kernels_for(y, kernels)
    if found is None:
        _reference_(y, x, pool, groups)
        return
    outputs = num_out // blocks
    require_packs(x, y, y[:, :outputs], pool.down, pool.up)
    if isinstance(groups, TileTable):
        require_tiles(groups, TILE_ROWS)
        tiles, tile_rows = groups
        columns = DEEP_COLUMNS[tile_rows]
        threads = block_threads(columns, DEEP_SPLITS[tile_rows])
        sizes = [np.int32(rank), np.int32(blocks), np.int32(outputs)]
        if tile_rows == min(TILE_ROWS):
            launch(
                found,
                FILE,
                "low_rank_small_tiles<{T}>",
                x.dtype,
                (len(tiles), blocks, div_ceil(outputs, EXPAND_OUTPUTS)),
                threads,
                [y, x, pool.down, pool.up, tiles, *sizes, np.int32(num_in)],
                shared_bytes=low_rank_shared_bytes(rank, x.dtype) - SMALL_TILE_BYTES,
            )
            return
        inner = x.new_empty(num_rows, ranks)
        launch(
            found,
            FILE,
            "low_rank_shrink_tiles<{T}>",
            x.dtype,
            (len(tiles), div_ceil(ranks, columns), 1),
            threads,
            [inner, x, pool.down, tiles, np.int32(ranks), np.int32(num_in)],
        )
        launch(
            found,
            FILE,
            "low_rank_expand_tiles<{T}>",
            x.dtype,
            (len(tiles), div_ceil(outputs, TILE_COLUMNS), blocks),
            block_threads(),
            [y, inner, pool.up, tiles, *sizes],
        )
        return
    require(groups, (num_rows,), torch.int32)
    inner = x.new_empty(num_rows, ranks)
    launch(
        found,
        FILE,
        "low_rank_shrink_rows<{T}>",
        x.dtype,
        (num_rows, 1, 1),
        THREADS,
        [inner, x, pool.down, groups, np.int32(ranks), np.int32(num_in)],
    )
    launch(
        found,
        FILE,
        "low_rank_expand_rows<{T}>",
        x.dtype,
        (num_rows, div_ceil(num_out, THREADS), 1),
        THREADS,
        [y, inner, pool.up, groups, np.int32(rank), np.int32(blocks), np.int32(num_out)],
    )


def low_rank_shared_bytes(rank: int, dtype: torch.dtype) -> int:
    """Return the shared memory of a small tile: of high ranks not every device has it."""
    return SMALL_TILE_BYTES + min(TILE_ROWS) * rank * dtype.itemsize


def low_rank_work(
    task_rows: Sequence[int],
    num_in: int,
    num_out: int,
    rank: int,
    blocks: int,
    element_bytes: int,
) -> Work:
    """Return what `add_low_rank_` does for the rows of each task.

    Shrink: a product with all ranks of all blocks; x is read, the ranks written. Expand: of each
    output a product with its block's ranks and an addition; the ranks are read, y read and written.
    A task's factors are read once.

    Args:
        task_rows: Of each task.
        num_in: Of the product.
        num_out: Of the product.
        rank: Of a block in the pool: kernels multiply the zeros of smaller ranks too.
        blocks: Of outputs.
        element_bytes: Of the dtype.
    """
    rows, ranks = sum(task_rows), blocks * rank
    flops = 2 * rows * num_in * ranks + rows * num_out * (2 * rank + 1)
    factors = len(task_rows) * (num_in * ranks + num_out * rank)
    num_values = rows * (num_in + 2 * ranks + 2 * num_out) + factors
    return Work(flops, num_values * element_bytes)


def _reference_(
    y: torch.Tensor, x: torch.Tensor, pool: LowRankPool, groups: torch.Tensor | TileTable
) -> None:
    rank, blocks = pool.up.shape[2], pool.blocks
    for (start, end), slot in _segments(groups):
        inner = (x[start:end].float() @ pool.down[slot].float().t()).to(x.dtype).float()
        update = torch.einsum(
            "nbr,bor->nbo",
            inner.view(-1, blocks, rank),
            pool.up[slot].float().view(blocks, -1, rank),
        )
        y[start:end] = (y[start:end].float() + update.flatten(1)).to(y.dtype)


def _segments(groups: torch.Tensor | TileTable) -> Iterator[Segment]:
    if isinstance(groups, TileTable):
        yield from listed(groups)
        return
    for row, slot in enumerate(groups.tolist()):
        if slot != NO_SLOT:
            yield Segment(Span(row, row + 1), slot)
