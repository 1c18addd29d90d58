"""Heads on a device: output layers of like numbers of labels in one launch."""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

import gpu_ops.grouped.ragged_head as grouped
from gpu_ops.grouped.kernel_file import Kernels
from gpu_ops.ragged_head import HeadWeights, ragged_head
from gpu_ops.spans import Span
from gpu_ops.upload import upload
from workers.power_of_two import power_of_two

FEW_LABELS = 256
"""Up to which all heads are one launch: so many logits are no more than a token's hidden states."""


class _OutputLayer(NamedTuple):
    number: int
    """Of its task among those of the batch."""
    span: Span
    weight: torch.Tensor
    bias: torch.Tensor
    num_labels: int


def run_heads(
    vectors: torch.Tensor,
    spans: Sequence[Span],
    heads: Sequence[HeadWeights],
    kernels: Kernels | None,
) -> list[NDArray[np.float32]]:
    """Run each task's head on that task's vectors: `gpu_ops.ragged_head`, whose results these are.

    Heads with a layer before the output layer, or without an output layer, are torch's, one by one.
    The others are one launch up to FEW_LABELS, and beyond that one for each power of two, of the
    vectors of its tasks alone: so no vector's logits take more than twice what its own task asks
    for, or than FEW_LABELS. All are launched before the host waits for the first.

    Args:
        vectors: Shape (num_vectors, hidden), float32.
        spans: One per task, ascending.
        heads: One per span, on the device of the vectors.
        kernels: Whose; None: CUDA's on a CUDA device.

    Returns:
        In host memory.
    """
    alike: dict[int, list[_OutputLayer]] = {}
    others: list[int] = []
    for number, (span, head) in enumerate(zip(spans, heads, strict=True)):
        if head.weight is None or head.bias is None or head.hidden is not None:
            others.append(number)
            continue
        layer = _OutputLayer(number, span, head.weight, head.bias, head.bias.numel())
        alike.setdefault(power_of_two(layer.num_labels, FEW_LABELS), []).append(layer)
    launched = [(layers, _launch(vectors, layers, kernels)) for layers in alike.values()]
    results = ragged_head(vectors, [spans[n] for n in others], [heads[n] for n in others])
    outputs = dict(zip(others, (result.cpu().numpy() for result in results), strict=True))
    for layers, logits in launched:
        copied = logits.cpu().numpy()
        starts = accumulate((layer.span.num_rows for layer in layers), initial=0)
        for layer, (start, end) in zip(layers, pairwise(starts), strict=True):
            outputs[layer.number] = copied[start:end, : layer.num_labels]
    return [outputs[number] for number in range(len(heads))]


def _launch(
    vectors: torch.Tensor, layers: Sequence[_OutputLayer], kernels: Kernels | None
) -> torch.Tensor:
    """Launch output layers of like numbers of labels; return the logits of their vectors alone."""
    nums_rows = [layer.span.num_rows for layer in layers]
    if sum(nums_rows) < len(vectors):
        vectors = torch.cat([vectors[slice(*layer.span)] for layer in layers])
    nums_labels = np.array([layer.num_labels for layer in layers])
    tables = [
        np.cumsum(nums_labels) - nums_labels,
        nums_labels,
        np.repeat(np.arange(len(layers)), nums_rows),
    ]
    joined = torch.from_numpy(np.concatenate(tables).astype(np.int32))
    first_label, num_labels, slots = torch.split(
        upload(joined, vectors.device), [len(table) for table in tables]
    )
    pool = grouped.HeadPool(
        grouped.side_by_side([layer.weight for layer in layers]),
        grouped.side_by_side([layer.bias for layer in layers]),
        first_label,
        num_labels,
    )
    return grouped.ragged_head(vectors, pool, slots, int(nums_labels.max()), kernels)
