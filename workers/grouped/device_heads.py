"""Heads on a device: output layers of like numbers of labels in one launch."""

from collections.abc import Sequence
from itertools import accumulate

import torch

import gpu_ops.grouped.ragged_head as grouped
from gpu_ops.grouped.kernel_file import Kernels
from gpu_ops.grouped.segments import Segment, row_slots
from gpu_ops.ragged_head import HeadWeights, ragged_head
from gpu_ops.spans import Span
from workers.power_of_two import power_of_two

FEW_LABELS = 256
"""Up to which all heads are one launch: so many logits are no more than a token's hidden states."""


def run_heads(
    vectors: torch.Tensor,
    spans: Sequence[Span],
    heads: Sequence[HeadWeights],
    kernels: Kernels | None,
) -> list[torch.Tensor]:
    """Run each task's head on that task's vectors: `gpu_ops.ragged_head`, whose results these are.

    Heads with a layer before the output layer, or without an output layer, are torch's, one by one.
    The others are one launch up to FEW_LABELS, and beyond that one for each power of two, of the
    vectors of its tasks alone: so no vector's logits take more than twice what its own task asks
    for, or than FEW_LABELS.

    Args:
        vectors: Shape (num_vectors, hidden), float32.
        spans: One per task.
        heads: One per span, on the device of the vectors.
        kernels: Whose; None: CUDA's on a CUDA device.

    Returns:
        In host memory.
    """
    alike: dict[int, list[int]] = {}
    others = []
    for number, head in enumerate(heads):
        if head.bias is None or head.hidden is not None:
            others.append(number)
        else:
            alike.setdefault(power_of_two(len(head.bias), FEW_LABELS), []).append(number)
    launched = [
        _run_alike(vectors, [spans[n] for n in numbers], [heads[n] for n in numbers], kernels)
        for numbers in alike.values()
    ]
    outputs: dict[int, torch.Tensor] = {}
    for numbers, (logits, own_spans) in zip(alike.values(), launched, strict=True):
        copied = logits.cpu()
        for number, (start, end) in zip(numbers, own_spans, strict=True):
            outputs[number] = copied[start:end, : _num_outputs(heads[number])]
    results = ragged_head(vectors, [spans[n] for n in others], [heads[n] for n in others])
    outputs.update(zip(others, (result.cpu() for result in results), strict=True))
    return [outputs[number] for number in range(len(heads))]


def _run_alike(
    vectors: torch.Tensor,
    spans: Sequence[Span],
    heads: Sequence[HeadWeights],
    kernels: Kernels | None,
) -> tuple[torch.Tensor, Sequence[Span]]:
    """Launch heads of like numbers of labels; return their logits, and where each one's are."""
    if sum(span.num_rows for span in spans) < len(vectors):
        vectors = torch.cat([vectors[start:end] for start, end in spans])
        ends = accumulate(span.num_rows for span in spans)
        spans = [Span(end - span.num_rows, end) for span, end in zip(spans, ends, strict=True)]
    segments = [Segment(span, slot) for slot, span in enumerate(spans)]
    slots = row_slots(segments, len(vectors)).to(vectors.device)
    max_labels = max(map(_num_outputs, heads))
    return grouped.ragged_head(vectors, grouped.head_pool(heads), slots, max_labels, kernels), spans


def _num_outputs(head: HeadWeights) -> int:
    assert head.bias is not None
    return len(head.bias)
