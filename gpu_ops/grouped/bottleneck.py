"""Bottleneck adapters (Houlsby et al. 2019, section 2.1) of all tasks at once."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from gpu_ops.grouped.bias_gelu import GELU_FLOPS
from gpu_ops.grouped.kernel_file import KernelFile, Kernels
from gpu_ops.grouped.launch import div_ceil, kernels_for, launch, require, require_packs
from gpu_ops.grouped.operator_schedule import Work
from gpu_ops.grouped.segments import TILE_ROWS, TileTable, listed
from gpu_ops.grouped.tiles import (
    DEEP_COLUMNS,
    DEEP_SPLITS,
    TILE_COLUMNS,
    block_threads,
    require_tiles,
)

FILE = KernelFile(
    "bottleneck",
    (
        *(f"bottleneck_down<{{T}}, {rows}>" for rows in TILE_ROWS),
        *(f"bottleneck_up<{{T}}, {rows}>" for rows in TILE_ROWS),
    ),
)


class BottleneckPool(NamedTuple):
    """The adapters at one place. A narrower one has zeros behind its own, biases included."""

    down_weight: torch.Tensor
    """Shape (slots, bottleneck, hidden)."""
    down_bias: torch.Tensor
    """Shape (slots, bottleneck)."""
    up_weight: torch.Tensor
    """Shape (slots, hidden, bottleneck)."""
    up_bias: torch.Tensor
    """Shape (slots, hidden)."""
    is_relu: torch.Tensor
    """Shape (slots,), int32: 1 for ReLU, 0 for the exact GELU. Both leave a zero a zero."""


def add_bottleneck_(
    h: torch.Tensor, pool: BottleneckPool, tiles: TileTable, kernels: Kernels | None = None
) -> None:
    """Run each tile's adapter on its rows.

    Semantics: h[r] += up[s] @ act(down[s] @ h[r] + down_bias[s]) + up_bias[s], s the slot of r's
    tile. Rows in no tile stay. What the activation returns is rounded to the dtype.

    Args:
        h: Shape (num_rows, hidden), bias included. Changed in place.
        pool: Of the same dtype.
        tiles: Disjoint rows.
        kernels: Whose; by default CUDA's for CUDA tensors, torch for CPU tensors.

    Raises:
        TypeError: If a dtype does not fit.
        ValueError: If a shape does not fit, or rows are no multiples of 16 bytes.
    """
    num_rows, hidden = h.shape
    num_slots, bottleneck, _ = pool.down_weight.shape
    require(pool.down_weight, (num_slots, bottleneck, hidden), h.dtype)
    require(pool.down_bias, (num_slots, bottleneck), h.dtype)
    require(pool.up_weight, (num_slots, hidden, bottleneck), h.dtype)
    require(pool.up_bias, (num_slots, hidden), h.dtype)
    require(pool.is_relu, (num_slots,), torch.int32)
    require_tiles(tiles, TILE_ROWS)
    found = kernels_for(h, kernels)
    if found is None:
        _reference_(h, pool, tiles)
        return
    require_packs(h, *pool[:4])
    inner = h.new_empty(num_rows, bottleneck)
    sizes = [np.int32(bottleneck), np.int32(hidden)]
    columns, splits = DEEP_COLUMNS[tiles.tile_rows], DEEP_SPLITS[tiles.tile_rows]
    launch(
        found,
        FILE,
        f"bottleneck_down<{{T}}, {tiles.tile_rows}>",
        h.dtype,
        (len(tiles.entries), div_ceil(bottleneck, columns), 1),
        block_threads(columns, splits),
        [inner, h, pool.down_weight, pool.down_bias, pool.is_relu, tiles.entries, *sizes],
    )
    launch(
        found,
        FILE,
        f"bottleneck_up<{{T}}, {tiles.tile_rows}>",
        h.dtype,
        (len(tiles.entries), div_ceil(hidden, TILE_COLUMNS), 1),
        block_threads(),
        [h, inner, pool.up_weight, pool.up_bias, tiles.entries, *sizes],
    )


def bottleneck_work(
    task_rows: Sequence[int], hidden: int, bottleneck: int, element_bytes: int
) -> Work:
    """Return what `add_bottleneck_` does for the rows of each task.

    Down: a product, bias and activation, counted as GELU's; h is read, the bottleneck written.
    Up: a product, bias and residual; the bottleneck is read, h read and written. An adapter is read
    once for each task.

    Args:
        task_rows: Of each task.
        hidden: Size of h.
        bottleneck: Of the pool: kernels multiply the zeros of narrower ones too.
        element_bytes: Of the dtype.
    """
    rows = sum(task_rows)
    flops = rows * bottleneck * (2 * hidden + 1 + GELU_FLOPS) + rows * hidden * (2 * bottleneck + 2)
    adapters = len(task_rows) * (2 * hidden * bottleneck + hidden + bottleneck)
    return Work(flops, (rows * (3 * hidden + 2 * bottleneck) + adapters) * element_bytes)


def _reference_(h: torch.Tensor, pool: BottleneckPool, tiles: TileTable) -> None:
    for (start, end), slot in listed(tiles):
        down, down_bias, up, up_bias = (part[slot].float() for part in pool[:4])
        act = F.relu if pool.is_relu[slot] else F.gelu
        rows = h[start:end].float()
        inner = act(F.linear(rows, down, down_bias)).to(h.dtype).float()
        h[start:end] = (rows + F.linear(inner, up, up_bias)).to(h.dtype)
