"""Sparse changes of the shared weight, of all tasks at once: diff pruning, and masks at few rows.

Compact: two bytes to a column, two or four to a value, none where a change drops a weight (its
value is the shared weight's: PetS, section 4, stores four bytes to each of both).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from gpu_ops.grouped.kernel_file import KernelFile, Kernels
from gpu_ops.grouped.launch import div_ceil, kernels_for, launch, require, require_packs
from gpu_ops.grouped.operator_schedule import Work
from gpu_ops.grouped.segments import TileTable, listed
from gpu_ops.grouped.tiles import require_tiles
from gpu_ops.sparse_delta import SparseWeights, changed_values

FILE = KernelFile("sparse_delta", ("sparse_delta<{T}>",))
DELTA_ROWS = 8
"""Rows of a tile, as in the kernel."""
THREADS = 512
"""Of a block, as in the kernel: each has an output."""
DROPPED = -1
"""In place of where a slot's values begin, if it has none."""


class SparsePool(NamedTuple):
    """The changes of one weight [out, in], each slot's behind the last one's."""

    columns: torch.Tensor
    """Shape (changes of all slots,), int16: row by row."""
    values: torch.Tensor
    """Shape (changes of all slots that have values,): what is added."""
    row_offsets: torch.Tensor
    """Shape (slots, out + 1), int32: where a row's changes lie among its slot's."""
    first_column: torch.Tensor
    """Shape (slots,), int64: where a slot's columns begin."""
    first_value: torch.Tensor
    """Shape (slots,), int64: where its values begin; DROPPED if its weights are dropped."""


def sparse_pool(deltas: Sequence[SparseWeights], dtype: torch.dtype) -> SparsePool:
    """Put tasks' changes of one weight into a pool, the first in slot 0.

    Args:
        deltas: With int16 columns.
        dtype: Of the values in the pool.
    """
    lengths = [delta.num_changed for delta in deltas]
    value_lengths = [0 if delta.values is None else delta.num_changed for delta in deltas]
    no_values = torch.empty(0, dtype=dtype, device=deltas[0].columns.device)
    return SparsePool(
        columns=torch.cat([delta.columns for delta in deltas]),
        values=torch.cat(
            [no_values, *(d.values.to(dtype) for d in deltas if d.values is not None)]
        ),
        row_offsets=torch.stack([delta.row_offsets.int() for delta in deltas]),
        first_column=_starts(lengths).to(no_values.device),
        first_value=torch.where(
            torch.tensor([delta.values is None for delta in deltas]),
            DROPPED,
            _starts(value_lengths),
        ).to(no_values.device),
    )


def _starts(lengths: Sequence[int]) -> torch.Tensor:
    ends = torch.tensor(lengths, dtype=torch.int64).cumsum(0)
    return torch.cat([ends.new_zeros(1), ends[:-1]])


def add_sparse_delta_(
    y: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    pool: SparsePool,
    tiles: TileTable,
    kernels: Kernels | None = None,
) -> None:
    """Add each tile's sparse product.

    Semantics: y[r] += delta[s] @ x[r], s the slot of r's tile. Rows in no tile stay.

    Args:
        y: Shape (num_rows, out), the shared product of `x`. Changed in place.
        x: Shape (num_rows, in).
        weight: Shape (out, in), shared.
        pool: Values of the same dtype.
        tiles: Disjoint, of DELTA_ROWS rows.
        kernels: Whose; by default CUDA's for CUDA tensors, torch for CPU tensors.

    Raises:
        TypeError: If a dtype does not fit.
        ValueError: If a shape does not fit, or rows are no multiples of 16 bytes.
    """
    (num_rows, num_in), num_out = x.shape, y.shape[1]
    num_slots = len(pool.row_offsets)
    require(y, (num_rows, num_out), x.dtype)
    require(weight, (num_out, num_in), x.dtype)
    require(pool.columns, (None,), torch.int16)
    require(pool.values, (None,), x.dtype)
    require(pool.row_offsets, (num_slots, num_out + 1), torch.int32)
    require(pool.first_column, (num_slots,), torch.int64)
    require(pool.first_value, (num_slots,), torch.int64)
    require_tiles(tiles, (DELTA_ROWS,))
    found = kernels_for(y, kernels)
    if found is None:
        _reference_(y, x, weight, pool, tiles)
        return
    require_packs(x)
    if num_in % DELTA_ROWS:
        raise ValueError(f"expected inputs in whole groups of {DELTA_ROWS}, got {num_in}")
    launch(
        found,
        FILE,
        "sparse_delta<{T}>",
        x.dtype,
        (len(tiles.entries), div_ceil(num_out, THREADS), 1),
        THREADS,
        [
            y,
            x,
            weight,
            pool.columns,
            pool.values,
            pool.row_offsets,
            pool.first_column,
            pool.first_value,
            tiles.entries,
            np.int32(num_out),
            np.int32(num_in),
        ],
        shared_bytes=sparse_delta_shared_bytes(num_in, x.dtype),
    )


def sparse_delta_shared_bytes(num_in: int, dtype: torch.dtype) -> int:
    """Return the shared memory of a block, which holds a tile's inputs: not every device has it."""
    return num_in * DELTA_ROWS * dtype.itemsize


def sparse_delta_work(
    task_rows: Sequence[int],
    task_changes: Sequence[int],
    num_in: int,
    num_out: int,
    element_bytes: int,
) -> Work:
    """Return what `add_sparse_delta_` does for the rows of each task.

    A multiply-add for each change in each row, and an addition to each output; x is read, y read
    and written. A task's changes are read once: two bytes to a column, a value, its own or the
    shared weight's, and four bytes for each output's offset.

    Args:
        task_rows: Of each task.
        task_changes: Of each task: how many weights it changes or drops.
        num_in: Of the product.
        num_out: Of the product.
        element_bytes: Of the dtype.
    """
    rows, changes = sum(task_rows), sum(task_changes)
    products = sum(n * c for n, c in zip(task_rows, task_changes, strict=True))
    row_bytes = rows * (num_in + 2 * num_out) * element_bytes
    change_bytes = changes * (2 + element_bytes) + len(task_rows) * 4 * (num_out + 1)
    return Work(2 * products + rows * num_out, row_bytes + change_bytes)


def _reference_(
    y: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, pool: SparsePool, tiles: TileTable
) -> None:
    for (start, end), slot in listed(tiles):
        offsets = pool.row_offsets[slot]
        first, length = int(pool.first_column[slot]), int(offsets[-1])
        first_value = int(pool.first_value[slot])
        is_dropped = first_value == DROPPED
        changes = SparseWeights(
            columns=pool.columns[first : first + length],
            row_offsets=offsets,
            values=None if is_dropped else pool.values[first_value : first_value + length],
        )
        rows = torch.arange(len(weight)).repeat_interleave(offsets.diff())
        delta = torch.zeros(weight.shape)
        delta[rows, changes.columns.long()] = changed_values(changes, weight).float()
        y[start:end] = (y[start:end].float() + x[start:end].float() @ delta.t()).to(y.dtype)
