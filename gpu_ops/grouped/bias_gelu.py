"""The epilogue of a shared product: task bias or shared bias, GELU, IA3's scale, in one pass.

A task's bias here replaces the shared one, as in PetS's code: the sum is made when a task is
loaded, so that BitFit (Y_t = XW + b + b_t: PetS, section 4) costs what the plain backbone costs.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from gpu_ops.grouped.kernel_file import KernelFile, Kernels
from gpu_ops.grouped.launch import div_ceil, kernels_for, launch, require, require_packs
from gpu_ops.grouped.operator_schedule import Work

FILE = KernelFile(
    "bias_gelu",
    tuple(
        f"bias_gelu<{{T}}, {gelu}, {scaled}>"
        for gelu in ("false", "true")
        for scaled in ("false", "true")
    ),
)
THREADS = 128
GELU_FLOPS = 5
"""Half of x, x over the root of two, its error function, one more, and their product."""


class RowVectors(NamedTuple):
    """A vector per slot and the slot of each row."""

    vectors: torch.Tensor
    """Shape (slots, features)."""
    slots: torch.Tensor
    """Shape (num_rows,), int32; -1 for none."""


def bias_gelu_(
    y: torch.Tensor,
    shared_bias: torch.Tensor,
    biases: RowVectors,
    *,
    gelu: bool,
    scales: RowVectors | None = None,
    kernels: Kernels | None = None,
) -> None:
    """Add each row's bias, apply GELU if so asked, multiply by the row's scale.

    Semantics: y[r] = act(y[r] + bias[r]) * scale[r].

    Args:
        y: Shape (num_rows, features), a product without bias. Changed in place.
        shared_bias: Shape (features,), of rows with bias slot -1.
        biases: Added instead of the shared one.
        gelu: Whether `act` is the exact GELU, or nothing.
        scales: IA3's; rows with scale slot -1 are not scaled. None: no row is.
        kernels: Whose; by default CUDA's for CUDA tensors, torch for CPU tensors.

    Raises:
        TypeError: If a dtype does not fit.
        ValueError: If a shape does not fit, or rows are no multiples of 16 bytes.
    """
    num_rows, width = y.shape
    require(shared_bias, (width,), y.dtype)
    for table in (biases, scales):
        if table is not None:
            require(table.vectors, (None, width), y.dtype)
            require(table.slots, (num_rows,), torch.int32)
    found = kernels_for(y, kernels)
    if found is None:
        _reference_(y, shared_bias, biases, gelu=gelu, scales=scales)
        return
    require_packs(y, shared_bias, biases.vectors)
    packs = width * y.element_size() // 16
    launch(
        found,
        FILE,
        f"bias_gelu<{{T}}, {str(gelu).lower()}, {str(scales is not None).lower()}>",
        y.dtype,
        (num_rows, div_ceil(packs, THREADS), 1),
        THREADS,
        [
            y,
            shared_bias,
            biases.vectors,
            biases.slots,
            None if scales is None else scales.vectors,
            None if scales is None else scales.slots,
            np.int32(width),
        ],
    )


def bias_gelu_work(
    task_rows: Sequence[int], width: int, element_bytes: int, *, gelu: bool, is_scaled: bool
) -> Work:
    """Return what `bias_gelu_` does for the rows of each task.

    An addition to an element, GELU's operations and a product where asked; y is read and written, a
    bias and a scale read for each task.
    """
    per_element = 1 + GELU_FLOPS * gelu + is_scaled
    elements = sum(task_rows) * width
    vectors = len(task_rows) * width * (1 + is_scaled)
    return Work(per_element * elements, (2 * elements + vectors) * element_bytes)


def _reference_(
    y: torch.Tensor,
    shared_bias: torch.Tensor,
    biases: RowVectors,
    *,
    gelu: bool,
    scales: RowVectors | None,
) -> None:
    has_bias = biases.slots >= 0
    bias = shared_bias.float().expand(y.shape).clone()
    bias[has_bias] = biases.vectors[biases.slots[has_bias]].float()
    values = y.float() + bias
    if gelu:
        values = F.gelu(values)
    if scales is not None:
        has_scale = scales.slots >= 0
        values[has_scale] *= scales.vectors[scales.slots[has_scale]].float()
    y.copy_(values)
