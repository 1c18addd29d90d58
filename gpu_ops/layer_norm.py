"""Residual and LayerNorm, with the gamma and beta of each row's task."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.nn import functional as F

from gpu_ops.spans import Span


class NormWeights(NamedTuple):
    """Parameters of one LayerNorm."""

    weight: torch.Tensor
    """Gamma, shape (hidden,)."""
    bias: torch.Tensor
    """Beta, shape (hidden,)."""


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class NormDeltas:
    """What a task adds to the parameters of one LayerNorm; None adds nothing."""

    weight: torch.Tensor | None
    """Shape (hidden,), of the shared gamma's type or float16."""
    bias: torch.Tensor | None
    """Shape (hidden,), likewise."""


def changed_norm(shared: NormWeights, deltas: NormDeltas) -> NormWeights:
    """Return shared plus delta; what has no delta is the shared tensor itself."""
    return NormWeights(
        shared.weight if deltas.weight is None else shared.weight + deltas.weight,
        shared.bias if deltas.bias is None else shared.bias + deltas.bias,
    )


def add_layer_norm(
    x: torch.Tensor,
    residual: torch.Tensor,
    shared: NormWeights,
    eps: float,
    spans: Sequence[Span],
    own: Sequence[NormWeights],
) -> torch.Tensor:
    """Return the LayerNorm of x + residual, with own parameters in the given spans.

    Semantics: z = x + residual; (z - mean(z)) / sqrt(var(z) + eps) * gamma + beta, row by row.

    Args:
        x: Shape (num_tokens, hidden). Changed in place (to x + residual).
        residual: Shape (num_tokens, hidden).
        shared: Parameters of the rows outside all spans.
        eps: Added to the variance.
        spans: Disjoint and ascending: rows of tasks with parameters of their own.
        own: One per span.
    """
    x.add_(residual)
    width = (x.shape[1],)
    if not spans:
        return F.layer_norm(x, width, shared.weight, shared.bias, eps)
    parts: list[torch.Tensor] = []
    done = 0
    for span, norm in zip(spans, own, strict=True):
        if span.start > done:
            between = x[done : span.start]
            parts.append(F.layer_norm(between, width, shared.weight, shared.bias, eps))
        parts.append(F.layer_norm(x[span.start : span.end], width, norm.weight, norm.bias, eps))
        done = span.end
    if done < len(x):
        parts.append(F.layer_norm(x[done:], width, shared.weight, shared.bias, eps))
    return torch.cat(parts)
