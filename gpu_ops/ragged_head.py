"""The tasks' output layers: any number of labels each, one op for all tasks of a batch."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from gpu_ops.activations import ACTIVATIONS, Activation
from gpu_ops.spans import Span


class HiddenWeights(NamedTuple):
    """The layer before a task's output layer: activation(v weight^T + bias)."""

    weight: torch.Tensor
    """Shape (features, hidden)."""
    bias: torch.Tensor
    """Shape (features,)."""
    activation: Activation


class HeadWeights(NamedTuple):
    """One task's output layer."""

    weight: torch.Tensor
    """Shape (num_labels, features); without a hidden layer, features are the hidden size."""
    bias: torch.Tensor
    """Shape (num_labels,)."""
    hidden: HiddenWeights | None = None


def ragged_head(
    vectors: torch.Tensor, spans: Sequence[Span], heads: Sequence[HeadWeights]
) -> list[torch.Tensor]:
    """Run each task's output layer on that task's vectors.

    Semantics: f(vectors[s.start:s.end]) @ weight^T + bias, for each span s and its head, with f its
    hidden layer where it has one.

    Args:
        vectors: Shape (num_vectors, hidden): pooled rows, or tokens of tagging tasks.
        spans: One per task.
        heads: One per span.

    Returns:
        One tensor per span, shape (rows of the span, num_labels of its task).
    """
    return [
        torch.addmm(head.bias, _features(vectors[start:end], head.hidden), head.weight.t())
        for (start, end), head in zip(spans, heads, strict=True)
    ]


def _features(vectors: torch.Tensor, hidden: HiddenWeights | None) -> torch.Tensor:
    if hidden is None:
        return vectors
    return ACTIVATIONS[hidden.activation](torch.addmm(hidden.bias, vectors, hidden.weight.t()))
