"""Bias, residual and LayerNorm in one pass, with the bias, gamma and beta of each row's task.

PetS runs this epilogue once per task (section 4: BitFit and diff pruning have LayerNorms of their
own); with a slot per row it is one pass for all.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from gpu_ops.grouped.kernel_file import KernelFile, Kernels
from gpu_ops.grouped.launch import PACK_BYTES, div_ceil, kernels_for, launch, require, require_packs
from gpu_ops.grouped.operator_schedule import Work

FILE = KernelFile("layer_norm", ("layer_norm<{T}>",))
WARPS = 4
"""Rows of a block."""
NORM_FLOPS = 10
"""Of an element: bias, residual; its part of the mean; deviation, square, its part of the variance;
and deviation again, divided, times gamma, plus beta."""


class NormPool(NamedTuple):
    """Bias, gamma and beta of the tasks that have one of them; the shared ones for the others."""

    shared: torch.Tensor
    """Shape (3, hidden): of all other rows."""
    params: torch.Tensor
    """Shape (slots, 3, hidden)."""
    slots: torch.Tensor
    """Shape (num_rows,), int32; -1 for the shared ones."""


def add_layer_norm(
    x: torch.Tensor,
    residual: torch.Tensor,
    pool: NormPool,
    eps: float,
    kernels: Kernels | None = None,
    *,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the LayerNorm of x + bias + residual.

    Semantics: z = x[r] + bias[r] + residual[r]; (z - mean(z)) / sqrt(var(z) + eps) * gamma[r] +
    beta[r].

    Args:
        x: Shape (num_rows, hidden), a product without bias.
        residual: Shape (num_rows, hidden).
        pool: Whose bias, gamma and beta.
        eps: Added to the variance.
        kernels: Whose; by default CUDA's for CUDA tensors, torch for CPU tensors.
        out: Where to; may be `x` or `residual`. None: a new tensor.

    Returns:
        Shape (num_rows, hidden): `out`, if it is given.

    Raises:
        TypeError: If a dtype does not fit.
        ValueError: If a shape does not fit, or rows are no multiples of 16 bytes.
    """
    num_rows, width = x.shape
    require(residual, (num_rows, width), x.dtype)
    require(pool.shared, (3, width), x.dtype)
    require(pool.params, (None, 3, width), x.dtype)
    require(pool.slots, (num_rows,), torch.int32)
    out = torch.empty_like(x) if out is None else out
    require(out, (num_rows, width), x.dtype)
    found = kernels_for(x, kernels)
    if found is None:
        return out.copy_(_reference(x, residual, pool, eps))
    require_packs(out, x, residual, pool.shared, pool.params)
    lane_columns = 32 * PACK_BYTES // x.element_size()  # of a warp at once
    launch(
        found,
        FILE,
        "layer_norm<{T}>",
        x.dtype,
        (div_ceil(num_rows, WARPS), 1, 1),
        32 * WARPS,
        [
            out,
            x,
            residual,
            pool.shared,
            pool.params,
            pool.slots,
            np.float32(eps),
            np.int32(num_rows),
            np.int32(width),
        ],
        shared_bytes=WARPS * div_ceil(width, lane_columns) * lane_columns * 4,
    )
    return out


def layer_norm_work(task_rows: Sequence[int], width: int, element_bytes: int) -> Work:
    """Return what `add_layer_norm` does for the rows of each task.

    Ten operations to an element, what is done once to a row left out; x and residual are read, the
    result written, and bias, gamma and beta read for each task.
    """
    elements = sum(task_rows) * width
    num_values = 3 * elements + 3 * len(task_rows) * width
    return Work(NORM_FLOPS * elements, num_values * element_bytes)


def _reference(x: torch.Tensor, residual: torch.Tensor, pool: NormPool, eps: float) -> torch.Tensor:
    is_own = pool.slots >= 0
    params = pool.shared.float().expand(len(x), *pool.shared.shape).clone()
    params[is_own] = pool.params[pool.slots[is_own]].float()
    bias, gamma, beta = params.unbind(1)
    normal = F.layer_norm(x.float() + bias + residual.float(), x.shape[1:], eps=eps)
    return (normal * gamma + beta).to(x.dtype)
