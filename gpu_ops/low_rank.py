"""Low-rank updates: LoRA (Hu et al. 2022, section 4.1), a PET that PetS names as an extension."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from gpu_ops.spans import Span


@dataclass(frozen=True, slots=True, eq=False)
class LowRankFactors:
    """One task's update of one weight matrix, W + up^T down^T in torch's [out, in] form."""

    down: torch.Tensor
    """Shape (in, rank), LoRA's A transposed."""
    up: torch.Tensor
    """Shape (rank, out), LoRA's B transposed, with its scale alpha / r multiplied in."""


def add_low_rank_(
    y: torch.Tensor, x: torch.Tensor, spans: Sequence[Span], factors: Sequence[LowRankFactors]
) -> None:
    """Add each task's low-rank product to the rows of that task.

    Semantics: y[s.start:s.end] += (x[s.start:s.end] @ down) @ up, for each span s.

    Args:
        y: Shape (num_tokens, out), the shared product of `x`. Changed in place.
        x: Shape (num_tokens, in), the site's input.
        spans: Disjoint.
        factors: One per span; ranks may differ.
    """
    for (start, end), task in zip(spans, factors, strict=True):
        y[start:end].addmm_(x[start:end] @ task.down, task.up)
