"""Heads on a device: output layers of all tasks in one launch, and one copy back."""

from collections.abc import Sequence

import torch

import gpu_ops.grouped.ragged_head as grouped
from gpu_ops.grouped.kernel_file import Kernels
from gpu_ops.grouped.segments import Segment, row_slots
from gpu_ops.ragged_head import HeadWeights, ragged_head
from gpu_ops.spans import Span


def run_heads(
    vectors: torch.Tensor,
    spans: Sequence[Span],
    heads: Sequence[HeadWeights],
    kernels: Kernels | None,
) -> list[torch.Tensor]:
    """Run each task's head on that task's vectors: `gpu_ops.ragged_head`, whose results these are.

    Heads with a layer before the output layer, or without an output layer, are torch's, one by one.

    Args:
        vectors: Shape (num_vectors, hidden), float32.
        spans: One per task.
        heads: One per span, on the device of the vectors.
        kernels: Whose; None: CUDA's on a CUDA device.

    Returns:
        In host memory.
    """
    outputs: dict[int, torch.Tensor] = {}
    plain = [n for n, head in enumerate(heads) if head.weight is not None and head.hidden is None]
    if plain:
        pool = grouped.head_pool([heads[number] for number in plain])
        segments = [Segment(spans[number], slot) for slot, number in enumerate(plain)]
        slots = row_slots(segments, len(vectors)).to(vectors.device)
        counts = [_num_outputs(heads[number]) for number in plain]
        logits = grouped.ragged_head(vectors, pool, slots, max(counts), kernels).cpu()
        for number, count in zip(plain, counts, strict=True):
            start, end = spans[number]
            outputs[number] = logits[start:end, :count]
    others = [number for number in range(len(heads)) if number not in outputs]
    results = ragged_head(vectors, [spans[n] for n in others], [heads[n] for n in others])
    outputs.update(zip(others, (result.cpu() for result in results), strict=True))
    return [outputs[number] for number in range(len(heads))]


def _num_outputs(head: HeadWeights) -> int:
    assert head.bias is not None
    return len(head.bias)
