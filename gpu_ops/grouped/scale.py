"""Task scales: IA3 (Liu et al. 2022, equations 1 and 2 of section 3.3), for all tasks at once."""

from collections.abc import Sequence

import numpy as np
import torch

from gpu_ops.grouped.bias_gelu import RowVectors
from gpu_ops.grouped.kernel_file import KernelFile, Kernels
from gpu_ops.grouped.launch import div_ceil, kernels_for, launch, require, require_packs
from gpu_ops.grouped.operator_schedule import Work

FILE = KernelFile("scale", ("scale<{T}>",))
THREADS = 128


def scale_(y: torch.Tensor, scales: RowVectors, kernels: Kernels | None = None) -> None:
    """Multiply the features of each row by its task's scale.

    Semantics: y[r] *= scales.vectors[scales.slots[r]]; rows with slot -1 stay.

    Args:
        y: Shape (num_rows, features). Changed in place.
        scales: Of the same dtype.
        kernels: Whose; by default CUDA's for CUDA tensors, torch for CPU tensors.

    Raises:
        TypeError: If a dtype does not fit.
        ValueError: If a shape does not fit, or rows are no multiples of 16 bytes.
    """
    num_rows, width = y.shape
    require(scales.vectors, (None, width), y.dtype)
    require(scales.slots, (num_rows,), torch.int32)
    found = kernels_for(y, kernels)
    if found is None:
        has_scale = scales.slots >= 0
        factors = scales.vectors[scales.slots[has_scale]].float()
        y[has_scale] = (y[has_scale].float() * factors).to(y.dtype)
        return
    require_packs(y, scales.vectors)
    packs = width * y.element_size() // 16
    launch(
        found,
        FILE,
        "scale<{T}>",
        y.dtype,
        (num_rows, div_ceil(packs, THREADS), 1),
        THREADS,
        [y, scales.vectors, scales.slots, np.int32(width)],
    )


def scale_work(task_rows: Sequence[int], width: int, element_bytes: int) -> Work:
    """Return what `scale_` does for the rows of each task.

    A product to an element; y is read and written, a scale read for each task.
    """
    elements = sum(task_rows) * width
    return Work(elements, (2 * elements + len(task_rows) * width) * element_bytes)
