"""The tasks' output layers, any number of labels each, in one launch."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from gpu_ops.grouped.kernel_file import KernelFile, Kernels
from gpu_ops.grouped.launch import kernels_for, launch, require, require_packs
from gpu_ops.grouped.segments import NO_SLOT
from gpu_ops.ragged_head import HeadWeights

FILE = KernelFile("ragged_head", ("ragged_head<{T}>",))
THREADS = 128


class HeadPool(NamedTuple):
    """Output layers, each slot's labels behind the last one's."""

    weights: torch.Tensor
    """Shape (labels of all slots, hidden)."""
    biases: torch.Tensor
    """Shape (labels of all slots,)."""
    first_label: torch.Tensor
    """Shape (slots,), int32: where a slot's labels begin."""
    num_labels: torch.Tensor
    """Shape (slots,), int32."""


def head_pool(heads: Sequence[HeadWeights]) -> HeadPool:
    """Put tasks' output layers into a pool, the first in slot 0; one by itself is not copied.

    Raises:
        ValueError: If a head has none: its features are its output, and its rows take no slot.
    """
    layers = [(h.weight, h.bias) for h in heads if h.weight is not None and h.bias is not None]
    if len(layers) < len(heads):
        raise ValueError("a head without an output layer has nothing to put into a pool")
    weights = side_by_side([weight for weight, _ in layers])
    counts = torch.tensor([len(bias) for _, bias in layers], dtype=torch.int32)
    return HeadPool(
        weights,
        side_by_side([bias for _, bias in layers]),
        (counts.cumsum(0, dtype=torch.int32) - counts).to(weights.device),
        counts.to(weights.device),
    )


def side_by_side(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return tasks' tensors as one; of a task alone it may be hundreds of megabytes, not copied."""
    return torch.cat(list(parts)) if len(parts) > 1 else parts[0].contiguous()


def ragged_head(
    vectors: torch.Tensor,
    pool: HeadPool,
    slots: torch.Tensor,
    max_labels: int,
    kernels: Kernels | None = None,
) -> torch.Tensor:
    """Run each row's output layer.

    Semantics: logits[r, :n] = weights[s] @ vectors[r] + biases[s], s = slots[r], of n labels; the
    rest of a row, and rows with slot -1, are 0.

    Args:
        vectors: Shape (num_rows, hidden): pooled rows, or tokens of tagging tasks.
        pool: Of the same dtype.
        slots: Shape (num_rows,), int32; -1 for none.
        max_labels: Labels of the task that has most.
        kernels: Whose; by default CUDA's for CUDA tensors, torch for CPU tensors.

    Returns:
        Shape (num_rows, max_labels), float32.

    Raises:
        TypeError: If a dtype does not fit.
        ValueError: If a shape does not fit, or rows are no multiples of 16 bytes.
    """
    num_rows, hidden = vectors.shape
    num_slots, all_labels = len(pool.first_label), len(pool.biases)
    require(pool.weights, (all_labels, hidden), vectors.dtype)
    require(pool.biases, (all_labels,), vectors.dtype)
    require(pool.first_label, (num_slots,), torch.int32)
    require(pool.num_labels, (num_slots,), torch.int32)
    require(slots, (num_rows,), torch.int32)
    found = kernels_for(vectors, kernels)
    if found is None:
        return _reference(vectors, pool, slots, max_labels)
    require_packs(vectors, pool.weights)
    logits = vectors.new_empty(num_rows, max_labels, dtype=torch.float32)
    launch(
        found,
        FILE,
        "ragged_head<{T}>",
        vectors.dtype,
        (num_rows, 1, 1),
        THREADS,
        [logits, vectors, *pool, slots, np.int32(max_labels), np.int32(hidden)],
    )
    return logits


def _reference(
    vectors: torch.Tensor, pool: HeadPool, slots: torch.Tensor, max_labels: int
) -> torch.Tensor:
    logits = torch.zeros(len(vectors), max_labels)
    for row, slot in enumerate(slots.tolist()):
        if slot == NO_SLOT:
            continue
        first, count = int(pool.first_label[slot]), int(pool.num_labels[slot])
        weight, bias = pool.weights[first : first + count], pool.biases[first : first + count]
        logits[row, :count] = weight.float() @ vectors[row].float() + bias.float()
    return logits
