"""Low-rank updates: LoRA (Hu et al. 2022, section 4.1), a PET that PetS names as an extension."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from gpu_ops.row_gate import GateWeights, row_gates
from gpu_ops.spans import Span
from gpu_ops.task_products import PLAIN_PRODUCTS, TaskProducts


class UpFactor(NamedTuple):
    """LoRA's B for some of the outputs; query, key and value have one each."""

    first_rank: int
    """Where its columns begin among the ranks of the down factor."""
    first_output: int
    """Where its rows begin among the outputs."""
    weight: torch.Tensor
    """Shape (outputs, rank), with LoRA's scale alpha / r multiplied in."""
    gate: GateWeights | None = None
    """Over the product's input; multiplies what is added (UniPELT)."""


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class LowRankFactors:
    """One task's update of one weight matrix."""

    down: torch.Tensor
    """Shape (ranks of all up factors, in): LoRA's A, one below the other."""
    ups: tuple[UpFactor, ...]


def add_low_rank_(
    y: torch.Tensor,
    x: torch.Tensor,
    spans: Sequence[Span],
    factors: Sequence[LowRankFactors],
    products: TaskProducts = PLAIN_PRODUCTS,
    row_lens: Sequence[Sequence[int]] | None = None,
) -> None:
    """Add each task's low-rank product to the rows of that task.

    Semantics: u = x[s] @ down^T; y[s, outputs] += gate(x[s]) * u[:, ranks] @ up^T, for each span s
    and each of its up factors.

    Args:
        y: Shape (num_tokens, out), the shared product of `x`. Changed in place.
        x: Shape (num_tokens, in), the site's input.
        spans: Disjoint.
        factors: One per span; ranks may differ.
        products: How to multiply.
        row_lens: Tokens of each span's rows; needed where a factor is gated.
    """
    for number, ((start, end), task) in enumerate(zip(spans, factors, strict=True)):
        has_many_rows = end - start >= products.min_rows
        if has_many_rows:
            inner = products.many_rows(x[start:end], task.down, None)
        else:
            inner = x[start:end] @ task.down.t()
        for first_rank, first_output, up, gate in task.ups:
            ranks = inner[:, first_rank : first_rank + up.shape[1]]
            if gate is not None:
                assert row_lens is not None
                ranks = ranks * row_gates(x[start:end], row_lens[number], gate)
            outputs = y[start:end, first_output : first_output + up.shape[0]]
            if has_many_rows:
                outputs.add_(products.many_rows(ranks, up, None))
            else:
                outputs.addmm_(ranks, up.t())
