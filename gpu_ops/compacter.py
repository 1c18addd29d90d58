"""Compacter's projections, multiplied out (Karimi Mahabadi et al. 2021, equations 3 and 5)."""

from dataclasses import dataclass
from typing import NamedTuple

import torch

from gpu_ops.activations import Activation
from gpu_ops.bottleneck import BottleneckWeights


class KroneckerFactors(NamedTuple):
    """One projection: weight^T = sum_i kron(rule_i, left_i right_i)."""

    rule: torch.Tensor
    """Shape (n, n, n), float32 or float16."""
    left: torch.Tensor
    """Shape (n, in / n, rank), or the whole blocks, (n, in / n, out / n); likewise."""
    right: torch.Tensor | None
    """Shape (n, rank, out / n), likewise. None: `left` has the whole blocks."""


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class CompacterWeights:
    """One task's adapter at one place, in factors."""

    down: KroneckerFactors
    down_bias: torch.Tensor
    """Shape (bottleneck,), float32 or float16."""
    up: KroneckerFactors
    up_bias: torch.Tensor
    """Shape (hidden,), likewise."""
    activation: Activation


def whole_weight(factors: KroneckerFactors) -> torch.Tensor:
    """Return the projection's weight, shape (out, in), float32."""
    rule, blocks = factors.rule.float(), factors.left.float()
    if factors.right is not None:
        blocks = blocks @ factors.right.float()
    n, num_in, num_out = blocks.shape
    # kron(rule_i, block_i)[a r + b, c s + d] = rule_i[a, c] block_i[b, d], for blocks [r, s].
    summed = blocks.new_zeros(n, num_in, n, num_out)
    for rule_i, block in zip(rule, blocks, strict=True):
        summed += rule_i[:, None, :, None] * block[None, :, None, :]
    return summed.view(n * num_in, n * num_out).t().contiguous()


def multiplied_out(adapter: CompacterWeights) -> BottleneckWeights:
    """Return the adapter with whole projections, float32."""
    return BottleneckWeights(
        down_weight=whole_weight(adapter.down),
        down_bias=adapter.down_bias.float(),
        up_weight=whole_weight(adapter.up),
        up_bias=adapter.up_bias.float(),
        activation=adapter.activation,
    )
