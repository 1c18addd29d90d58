"""The tasks' output layers: any number of labels each, one op for all tasks of a batch."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from gpu_ops.spans import Span


class HeadWeights(NamedTuple):
    """One task's output layer."""

    weight: torch.Tensor
    """Shape (num_labels, hidden)."""
    bias: torch.Tensor
    """Shape (num_labels,)."""


def ragged_head(
    vectors: torch.Tensor, spans: Sequence[Span], heads: Sequence[HeadWeights]
) -> list[torch.Tensor]:
    """Run each task's output layer on that task's vectors.

    Semantics: vectors[s.start:s.end] @ weight^T + bias, for each span s and its head.

    Args:
        vectors: Shape (num_vectors, hidden): pooled rows, or tokens of tagging tasks.
        spans: One per task.
        heads: One per span.

    Returns:
        One tensor per span, shape (rows of the span, num_labels of its task).
    """
    return [
        torch.addmm(head.bias, vectors[start:end], head.weight.t())
        for (start, end), head in zip(spans, heads, strict=True)
    ]
