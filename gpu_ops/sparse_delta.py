"""Sparse changes of single weights: MaskBERT masks and diff pruning (PetS, section 4).

Two ways to the same product, for few and for many rows of a task: a sparse product beside the
shared one, or a copy of the shared weight with the changes written in. Which is faster from how
many rows on depends on the machine and the density, so the caller measures it.

A change is held as CSR with two bytes to a column and, where they suffice, to a row; the values of
dropped weights are read from the shared weight (PetS: four bytes to each, and the values). What an
op needs besides is made when it runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from gpu_ops.spans import Span


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class SparseWeights:
    """One task's changes of one weight matrix [out, in]."""

    columns: torch.Tensor
    """Shape (num_changed,), int16, or int32 where `in` is too large for it: row by row, ascending
    within each."""
    row_offsets: torch.Tensor
    """Shape (out + 1,), int16, or int32 where there are too many changes for it: row r has the
    columns from row_offsets[r] to row_offsets[r + 1]."""
    values: torch.Tensor | None
    """Shape (num_changed,), float32 or float16: what is added there. None: the weights there are
    dropped, each w has -w added."""

    @property
    def num_changed(self) -> int:
        """How many weights it changes."""
        return len(self.columns)


def sparse_weights(
    flat_indices: torch.Tensor, values: torch.Tensor | None, shape: tuple[int, int]
) -> SparseWeights:
    """Build a sparse change.

    Args:
        flat_indices: Shape (num_changed,), int32, strictly ascending positions in [out, in].
        values: Shape (num_changed,), float32 or float16; None: the weights there are dropped.
        shape: (out, in).
    """
    num_out, num_in = shape
    row_ends = torch.bincount(flat_indices // num_in, minlength=num_out).cumsum(0)
    row_offsets = torch.cat([row_ends.new_zeros(1), row_ends])
    return SparseWeights(
        columns=(flat_indices % num_in).to(_narrowest(num_in - 1)),
        row_offsets=row_offsets.to(_narrowest(len(flat_indices))),
        values=values,
    )


def _narrowest(largest: int) -> torch.dtype:
    """Return the smallest type of integers, of those that ops convert quickly, for 0..largest."""
    return torch.int16 if largest <= torch.iinfo(torch.int16).max else torch.int32


def add_sparse_delta_(
    y: torch.Tensor,
    x: torch.Tensor,
    spans: Sequence[Span],
    deltas: Sequence[SparseWeights],
    values: Sequence[torch.Tensor],
) -> None:
    """Add each task's sparse product to the rows of that task.

    Semantics: y[s.start:s.end] += x[s.start:s.end] @ delta^T, for each span s and its delta.

    Args:
        y: Shape (num_tokens, out), the shared product of `x`. Changed in place.
        x: Shape (num_tokens, in), the site's input.
        spans: Disjoint.
        deltas: One per span.
        values: What each delta adds (`changed_values`).
    """
    for (start, end), delta, added in zip(spans, deltas, values, strict=True):
        # delta x^T: each output is a weighted sum of some rows of x^T, which is what an embedding
        # bag computes. At 32 rows it takes half as long as torch's sparse product.
        update = F.embedding_bag(
            delta.columns.int(),
            x[start:end].t().float().contiguous(),
            delta.row_offsets.int(),
            mode="sum",
            per_sample_weights=added.float(),
            include_last_offset=True,
        )
        y[start:end].add_(update.t())


def changed_values(delta: SparseWeights, weight: torch.Tensor) -> torch.Tensor:
    """Return what a change adds, shape (num_changed,).

    Args:
        delta: A change of `weight`.
        weight: Shape (out, in), contiguous.
    """
    if delta.values is not None:
        return delta.values
    return weight.view(-1).index_select(0, _flat_indices(delta, weight)).neg_()


def patch_weight(weight: torch.Tensor, delta: SparseWeights, out: torch.Tensor) -> torch.Tensor:
    """Write the shared weight with a task's changes into `out` and return it.

    Semantics: out[...] = weight + delta.

    Args:
        weight: Shape (out, in), contiguous.
        delta: A change of it.
        out: Shape (out, in), contiguous. Changed in place.
    """
    out.copy_(weight)
    indices = _flat_indices(delta, weight)
    if delta.values is None:
        out.view(-1).index_fill_(0, indices.long(), 0.0)
    else:
        out.view(-1).index_add_(0, indices, delta.values.to(out.dtype))
    return out


def _flat_indices(delta: SparseWeights, weight: torch.Tensor) -> torch.Tensor:
    """Return the positions in the weight read row by row, shape (num_changed,), int32."""
    rows, columns = torch._convert_indices_from_csr_to_coo(
        delta.row_offsets.int(), delta.columns.int(), out_int32=True
    )
    return torch.add(columns, rows, alpha=weight.shape[1])
