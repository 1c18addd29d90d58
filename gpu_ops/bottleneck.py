"""Bottleneck adapters (Houlsby et al. 2019, section 2.1; Pfeiffer et al. 2021, section 3.1).

PetS writes the adapter without its residual and applies it to the bias-free product; here it is
the published adapter: h + up(activation(down(h))) with h = XW + b.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional as F

from gpu_ops.spans import Span


@dataclass(frozen=True, slots=True, eq=False)
class BottleneckWeights:
    """One task's adapter at one place."""

    down_weight: torch.Tensor
    """Shape (hidden, bottleneck)."""
    down_bias: torch.Tensor
    """Shape (bottleneck,)."""
    up_weight: torch.Tensor
    """Shape (bottleneck, hidden)."""
    up_bias: torch.Tensor
    """Shape (hidden,)."""
    activation: Literal["gelu", "relu"]
    """`gelu` is the exact one, by the error function."""


def add_bottleneck_(
    h: torch.Tensor, spans: Sequence[Span], adapters: Sequence[BottleneckWeights]
) -> None:
    """Run each task's adapter on the rows of that task.

    Semantics: h[s] += activation(h[s] @ down_weight + down_bias) @ up_weight + up_bias.

    Args:
        h: Shape (num_tokens, hidden), a site's output before residual and LayerNorm. Changed in
            place.
        spans: Disjoint.
        adapters: One per span; bottlenecks may differ.
    """
    for (start, end), adapter in zip(spans, adapters, strict=True):
        rows = h[start:end]
        inner = torch.addmm(adapter.down_bias, rows, adapter.down_weight)
        if adapter.activation == "gelu":
            inner = F.gelu(inner)
        else:
            inner.relu_()
        rows.addmm_(inner, adapter.up_weight).add_(adapter.up_bias)
