"""Adapters whose way needs the residual or the LayerNorm of their sub-layer.

The variants in which published adapters differ from Houlsby's: parallel (He et al. 2022, table 1),
behind the LayerNorm (Pfeiffer et al. 2020), with LayerNorms of their own, gated (UniPELT).
`gpu_ops.bottleneck` is the plain one, which runs before either is known.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional as F

from gpu_ops.activations import ACTIVATIONS
from gpu_ops.bottleneck import BottleneckWeights
from gpu_ops.compacter import CompacterWeights
from gpu_ops.layer_norm import NormWeights
from gpu_ops.row_gate import GateWeights, row_gates

OWN_EPS = 1e-5
"""Of an adapter's own LayerNorms."""


@dataclass(frozen=True, slots=True, eq=False)
class SublayerAdapter:
    """One task's adapter at the end of a sub-layer."""

    projections: BottleneckWeights | CompacterWeights
    reads: Literal["output", "normed", "input"]
    adds_to: Literal["output", "normed", "summed"]
    norm_before: NormWeights | None
    norm_after: NormWeights | None
    norm_after_on: Literal["change", "sum"]
    gate: GateWeights | None
    skips_norm: bool


def run_sublayer_adapter(
    output: torch.Tensor,
    residual: torch.Tensor,
    norm: NormWeights,
    eps: float,
    adapter: SublayerAdapter,
    projections: BottleneckWeights,
    row_lens: Sequence[int],
) -> torch.Tensor:
    """Return what the sub-layer gives with the adapter, its LayerNorm included.

    Semantics, with LN the sub-layer's:
        source = output | LN(output + residual) | residual
        base   = output | LN(output + residual) | output + residual
        change = gate(source) * up(activation(down(norm_before(source))))
        z      = base + norm_after(change)  or  norm_after(base + change)
        LN(z + residual), or z where the adapter skips the norm

    Args:
        output: Shape (num_tokens, hidden): the sub-layer's, of rows of one task.
        residual: Shape (num_tokens, hidden): the sub-layer's input.
        norm: The LayerNorm behind the sub-layer.
        eps: Of that LayerNorm.
        adapter: The task's.
        projections: Its own, multiplied out.
        row_lens: Tokens of each row.

    Returns:
        Shape (num_tokens, hidden).
    """
    width = (output.shape[1],)
    summed = output + residual
    places = {"output": output, "input": residual, "summed": summed}
    if "normed" in (adapter.reads, adapter.adds_to):
        places["normed"] = F.layer_norm(summed, width, *norm, eps)
    source, base = places[adapter.reads], places[adapter.adds_to]
    change = _change(source, adapter, projections, row_lens)
    if adapter.norm_after is not None:
        if adapter.norm_after_on == "change":
            change = F.layer_norm(change, width, *adapter.norm_after, OWN_EPS)
            result = base + change
        else:
            result = F.layer_norm(base + change, width, *adapter.norm_after, OWN_EPS)
    else:
        result = base + change
    if adapter.skips_norm:
        return result
    return F.layer_norm(result + residual, width, *norm, eps)


def _change(
    source: torch.Tensor,
    adapter: SublayerAdapter,
    projections: BottleneckWeights,
    row_lens: Sequence[int],
) -> torch.Tensor:
    x = source
    if adapter.norm_before is not None:
        x = F.layer_norm(x, (x.shape[1],), *adapter.norm_before, OWN_EPS)
    down, down_bias = projections.down_weight.to(x.dtype), projections.down_bias.to(x.dtype)
    inner = F.linear(x, down, down_bias)
    inner = ACTIVATIONS[projections.activation](inner)
    up, up_bias = projections.up_weight.to(x.dtype), projections.up_bias.to(x.dtype)
    change = F.linear(inner, up, up_bias)
    if adapter.gate is not None:
        change.mul_(row_gates(source, row_lens, adapter.gate))
    return change
