"""Bottleneck adapters (Houlsby et al. 2019, section 2.1; Pfeiffer et al. 2021, section 3.1).

PetS writes the adapter without its residual and applies it to the bias-free product; here it is
the published adapter: h + up(activation(down(h))) with h = XW + b.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from gpu_ops.activations import ACTIVATIONS, Activation
from gpu_ops.spans import Span
from gpu_ops.task_products import PLAIN_PRODUCTS, TaskProducts


@dataclass(frozen=True, slots=True, eq=False)
class BottleneckWeights:
    """One task's adapter at one place."""

    down_weight: torch.Tensor
    """Shape (bottleneck, hidden), of the input's type or float16."""
    down_bias: torch.Tensor
    """Shape (bottleneck,)."""
    up_weight: torch.Tensor
    """Shape (hidden, bottleneck), likewise."""
    up_bias: torch.Tensor
    """Shape (hidden,)."""
    activation: Activation


def add_bottleneck_(
    h: torch.Tensor,
    spans: Sequence[Span],
    adapters: Sequence[BottleneckWeights],
    products: TaskProducts = PLAIN_PRODUCTS,
) -> None:
    """Run each task's adapter on the rows of that task.

    Semantics: h[s] += activation(h[s] @ down_weight^T + down_bias) @ up_weight^T + up_bias.

    Args:
        h: Shape (num_tokens, hidden), a site's output before residual and LayerNorm. Changed in
            place.
        spans: Disjoint.
        adapters: One per span; bottlenecks may differ.
        products: How to multiply.
    """
    for (start, end), adapter in zip(spans, adapters, strict=True):
        rows = h[start:end]
        linear = products.many_rows if end - start >= products.min_rows else F.linear
        inner = linear(rows, adapter.down_weight.to(h.dtype), adapter.down_bias.to(h.dtype))
        inner = ACTIVATIONS[adapter.activation](inner)
        rows.add_(linear(inner, adapter.up_weight.to(h.dtype), adapter.up_bias.to(h.dtype)))
