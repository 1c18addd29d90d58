"""Sparse changes of single weights: MaskBERT masks and diff pruning (PetS, section 4).

Two ways to the same product, for few and for many rows of a task: a sparse product beside the
shared one, or a copy of the shared weight with the changes written in. Which is faster from how
many rows on depends on the machine and the density, so the caller measures it.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from gpu_ops.spans import Span


@dataclass(frozen=True, slots=True, eq=False)
class SparseWeights:
    """One task's changes of one weight matrix [out, in]."""

    flat_indices: torch.Tensor
    """Shape (num_changed,), int32: positions in the matrix read row by row, strictly ascending."""
    values: torch.Tensor
    """Shape (num_changed,), float32: what is added there; a dropped weight w has -w here."""
    matrix: torch.Tensor
    """The same as a CSR matrix of shape (out, in), with `values` as its values."""


def sparse_weights(
    flat_indices: torch.Tensor, values: torch.Tensor, shape: tuple[int, int]
) -> SparseWeights:
    """Build the CSR form of a sparse change.

    Args:
        flat_indices: Shape (num_changed,), int32, strictly ascending positions in [out, in].
        values: Shape (num_changed,), float32.
        shape: (out, in).
    """
    num_out, num_in = shape
    rows = flat_indices // num_in
    row_ends = torch.bincount(rows, minlength=num_out).cumsum(0)
    row_offsets = torch.cat([row_ends.new_zeros(1), row_ends]).to(torch.int32)
    with warnings.catch_warnings():
        # torch calls its CSR tensors a beta; what is used of them here is tested.
        warnings.filterwarnings("ignore", "Sparse CSR tensor support", UserWarning)
        warnings.filterwarnings("ignore", "Sparse invariant checks", UserWarning)
        matrix = torch.sparse_csr_tensor(
            row_offsets, flat_indices % num_in, values, size=shape, check_invariants=False
        )
    return SparseWeights(flat_indices, values, matrix)


def add_sparse_delta_(
    y: torch.Tensor, x: torch.Tensor, spans: Sequence[Span], deltas: Sequence[SparseWeights]
) -> None:
    """Add each task's sparse product to the rows of that task.

    Semantics: y[s.start:s.end] += x[s.start:s.end] @ delta^T, for each span s and its delta.

    Args:
        y: Shape (num_tokens, out), the shared product of `x`. Changed in place.
        x: Shape (num_tokens, in), the site's input.
        spans: Disjoint.
        deltas: One per span.
    """
    for (start, end), delta in zip(spans, deltas, strict=True):
        # The sparse kernel wants the rows of the batch side by side: (delta x^T)^T. Multiplying
        # by the transposed matrix instead is up to 30 times slower in torch.
        columns = x[start:end].t().contiguous()
        y[start:end].add_(torch.mm(delta.matrix, columns).t())


def patch_weight(weight: torch.Tensor, delta: SparseWeights, out: torch.Tensor) -> torch.Tensor:
    """Write the shared weight with a task's changes into `out` and return it.

    Semantics: out[...] = weight; out.flat[delta.flat_indices] += delta.values.

    Args:
        weight: Shape (out, in), contiguous.
        delta: A change of it.
        out: Shape (out, in), contiguous. Changed in place.
    """
    out.copy_(weight)
    out.view(-1).index_add_(0, delta.flat_indices, delta.values)
    return out
