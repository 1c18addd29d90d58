"""The tasks' heads, of any number of outputs each: one op for all tasks of a batch."""

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

    weight: torch.Tensor | None
    """Shape (num_outputs, features); without a hidden layer, features are the hidden size. None, as
    the bias: there is no output layer, the features are the output."""
    bias: torch.Tensor | None
    """Shape (num_outputs,)."""
    hidden: HiddenWeights | None = None


def ragged_head(
    vectors: torch.Tensor, spans: Sequence[Span], heads: Sequence[HeadWeights]
) -> list[torch.Tensor]:
    """Run each task's head on that task's vectors.

    Semantics: f(vectors[s.start:s.end]) @ weight^T + bias, for each span s and its head, with f its
    hidden layer where it has one; of a head without an output layer f(vectors[s.start:s.end]).

    Args:
        vectors: Shape (num_vectors, hidden): pooled rows, or tokens of tagging tasks.
        spans: One per task.
        heads: One per span.

    Returns:
        One tensor per span, shape (rows of the span, num_outputs of its task); of a head without
        any layer a view of the vectors.
    """
    return [
        _output(_features(vectors[start:end], head.hidden), head)
        for (start, end), head in zip(spans, heads, strict=True)
    ]


def _output(features: torch.Tensor, head: HeadWeights) -> torch.Tensor:
    if head.weight is None or head.bias is None:
        return features
    return torch.addmm(head.bias, features, head.weight.t())


def _features(vectors: torch.Tensor, hidden: HiddenWeights | None) -> torch.Tensor:
    if hidden is None:
        return vectors
    return ACTIVATIONS[hidden.activation](torch.addmm(hidden.bias, vectors, hidden.weight.t()))
