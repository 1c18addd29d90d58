"""`gpu_ops.sparse_delta`, compiled: changes are read in the form in which they are held."""

from collections.abc import Sequence

import torch

from gpu_ops.compiled.library import POINTER, SIZE, Library, check_contiguous, check_float32
from gpu_ops.compiled.sparse_change import CHANGE, POSITIONS, ChangeArguments
from gpu_ops.spans import Span
from gpu_ops.sparse_delta import SparseWeights


class CompiledSparseDelta:
    """The two ways of a sparse change; may be called from several threads."""

    def __init__(self, library: Library) -> None:
        self._scratch = library.function("sparse_products_scratch", SIZE, result=SIZE)
        self._patch = library.function(
            "patch_weight", POINTER, POINTER, SIZE, SIZE, *CHANGE, *POSITIONS
        )
        self._add = library.by_dtype(
            "add_sparse_products",
            *(POINTER, POINTER, POINTER, SIZE, SIZE),
            *(SIZE, POINTER, POINTER),
        )
        self._arguments = ChangeArguments()

    def patch_weight(
        self,
        weight: torch.Tensor,
        delta: SparseWeights,
        out: torch.Tensor,
        before: SparseWeights | None = None,
    ) -> torch.Tensor:
        """Write the shared weight with a task's changes into `out` and return it.

        From one task to the next only the changes are written, which takes a small part of the
        time of a copy.

        Args:
            weight: Shape (out, in), float32.
            delta: A change of it.
            out: Shape (out, in), float32. Changed in place.
            before: The change of the same weight that `out` has; None where it holds anything else.
        """
        check_float32(weight, out)
        self._patch(
            *(weight.data_ptr(), out.data_ptr(), *weight.shape),
            *self._arguments(delta),
            *((None, 0, None, 0) if before is None else self._arguments(before)[:4]),
        )
        return out

    def add_sparse_delta_(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        spans: Sequence[Span],
        deltas: Sequence[SparseWeights],
        weight: torch.Tensor,
    ) -> None:
        """Add each task's sparse product to the rows of that task.

        Args:
            y: Shape (num_tokens, out), float32 or bfloat16. Changed in place.
            x: Shape (num_tokens, in), the site's input, of the same type.
            spans: Disjoint.
            deltas: One per span, changes of `weight`.
            weight: Shape (out, in), float32: dropped weights are read from it.
        """
        if not spans:
            return
        check_contiguous(y, x)
        check_float32(weight)
        num_out, num_in = weight.shape
        tasks = self._arguments.of_rows(spans, deltas)
        scratch = torch.empty(self._scratch(num_in))
        self._add[y.dtype](
            *(y.data_ptr(), x.data_ptr(), weight.data_ptr(), num_out, num_in),
            *(len(spans), tasks.buffer_info()[0], scratch.data_ptr()),
        )
