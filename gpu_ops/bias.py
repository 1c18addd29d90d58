"""Task biases: BitFit, and the bias part of diff pruning (PetS, section 4: Y_t = XW + b + b_t)."""

from collections.abc import Sequence

import torch

from gpu_ops.spans import Span


def add_bias_(y: torch.Tensor, spans: Sequence[Span], biases: Sequence[torch.Tensor]) -> None:
    """Add each task's bias to the rows of that task.

    Semantics: y[s.start:s.end] += bias, for each span s and its bias.

    Args:
        y: Shape (num_tokens, out). Changed in place.
        spans: Disjoint.
        biases: One per span, shape (out,), added to the shared bias that `y` already has.
    """
    for (start, end), bias in zip(spans, biases, strict=True):
        y[start:end].add_(bias)
