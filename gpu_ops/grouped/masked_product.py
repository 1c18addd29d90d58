"""MaskBERT (Zhao et al. 2020, section 3) of all tasks at once: Y_t = X (M_t * W).

For many rows of a task. PetS adds the dropped weights' part beside the shared product (section 4);
this replaces the product: the weight, read once for all tasks, is masked on its way into the
tensor cores. `sparse_delta` does what PetS does, for few rows.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from gpu_ops.grouped.kernel_file import KernelFile, Kernels
from gpu_ops.grouped.launch import div_ceil, kernels_for, launch, require, require_packs
from gpu_ops.grouped.operator_schedule import Work
from gpu_ops.grouped.segments import TILE_ROWS, TileTable, listed
from gpu_ops.grouped.tiles import TILE_COLUMNS, block_threads, require_tiles

FILE = KernelFile("masked_product", tuple(f"masked_product<{{T}}, {rows}>" for rows in TILE_ROWS))
SPLITS: Mapping[int, int] = {16: 4, 64: 1}
"""Rows of a tile -> groups of threads that share out the depth."""
BITS = 1 << torch.arange(8, dtype=torch.uint8)
"""Of a byte: bit k % 8 stands for input k."""


def pack_mask(is_kept: torch.Tensor) -> torch.Tensor:
    """Return a mask at one bit to a weight, shape (..., in / 8), uint8.

    Args:
        is_kept: Shape (..., in), bool; `in` a multiple of 8.
    """
    parts = is_kept.view(*is_kept.shape[:-1], -1, 8)
    return torch.sum(parts * BITS.to(is_kept.device), -1, dtype=torch.uint8)


def unpack_mask(kept: torch.Tensor) -> torch.Tensor:
    """Return the mask that `pack_mask` was given."""
    return (kept.unsqueeze(-1) & BITS.to(kept.device)).ne(0).flatten(-2)


def masked_product_(
    y: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    kept: torch.Tensor,
    tiles: TileTable,
    kernels: Kernels | None = None,
) -> None:
    """Multiply the rows of each tile by the weight as its task masks it.

    Semantics: y[r] = (weight * kept[s]) @ x[r], s the slot of r's tile. Rows in no tile stay.

    Args:
        y: Shape (num_rows, out). Changed in place.
        x: Shape (num_rows, in).
        weight: Shape (out, in), shared.
        kept: Shape (slots, out, in / 8), uint8, as of `pack_mask`.
        tiles: Disjoint rows.
        kernels: Whose; by default CUDA's for CUDA tensors, torch for CPU tensors.

    Raises:
        TypeError: If a dtype does not fit.
        ValueError: If a shape does not fit, or rows are no multiples of 16 bytes.
    """
    (num_rows, num_in), num_out = x.shape, y.shape[1]
    require(y, (num_rows, num_out), x.dtype)
    require(weight, (num_out, num_in), x.dtype)
    require(kept, (None, num_out, num_in // 8), torch.uint8)
    require_tiles(tiles, TILE_ROWS)
    if num_in % 8:
        raise ValueError(f"expected inputs in whole bytes of bits, got {num_in}")
    found = kernels_for(y, kernels)
    if found is None:
        for (start, end), slot in listed(tiles):
            masked = weight.float() * unpack_mask(kept[slot])
            y[start:end] = (x[start:end].float() @ masked.t()).to(y.dtype)
        return
    require_packs(x, y, weight)
    launch(
        found,
        FILE,
        f"masked_product<{{T}}, {tiles.tile_rows}>",
        x.dtype,
        (len(tiles.entries), div_ceil(num_out, TILE_COLUMNS), 1),
        block_threads(splits=SPLITS[tiles.tile_rows]),
        [y, x, weight, kept, tiles.entries, np.int32(num_out), np.int32(num_in)],
    )


def masked_product_work(
    task_rows: Sequence[int], num_in: int, num_out: int, element_bytes: int
) -> Work:
    """Return what `masked_product_` does for the rows of each task.

    A dense product, dropped weights included; x is read, y written, the shared weight read once for
    all tasks, and a bit to a weight for each.
    """
    rows, num_weights = sum(task_rows), num_in * num_out
    num_values = rows * (num_in + num_out) + num_weights
    mask_bytes = len(task_rows) * num_weights // 8
    return Work(2 * rows * num_weights, num_values * element_bytes + mask_bytes)
