"""Gates of whole rows: how much of an op a row gets (UniPELT: Mao et al. 2022, section 3.2).

The published code takes the mean over padding too, so that a row's gate depends on its neighbours;
here a row is its own tokens.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch


class GateWeights(NamedTuple):
    """One task's gate at one place."""

    weight: torch.Tensor
    """Shape (in,)."""
    bias: torch.Tensor
    """Shape (1,)."""


def row_gates(x: torch.Tensor, row_lens: Sequence[int], gate: GateWeights) -> torch.Tensor:
    """Return each token's share, the same for all tokens of a row.

    Semantics: mean over the row's tokens of sigmoid(x weight + bias).

    Args:
        x: Shape (num_tokens, in): whole rows of one task, end to end.
        row_lens: Tokens of each row, each at least 1.
        gate: The task's.

    Returns:
        Shape (num_tokens, 1), of the type of `x`; computed in float32.
    """
    shares = torch.sigmoid(x.float() @ gate.weight + gate.bias)
    lengths = torch.tensor(row_lens, dtype=torch.int64, device=x.device)
    means = torch.segment_reduce(shares, "mean", lengths=lengths)
    return means.repeat_interleave(lengths).unsqueeze(1).to(x.dtype)
