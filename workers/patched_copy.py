"""A copy of a shared weight that takes on the changes of one task after the other's."""

import torch

from gpu_ops.sparse_delta import SparseWeights
from workers.operators import PatchWeight
from workers.task_ops import ProductOps


class PatchedCopy:
    """For one thread.

    Args:
        shared: Shape (out, in), float32.
        patch: Writes a sparse change.
    """

    def __init__(self, shared: torch.Tensor, patch: PatchWeight) -> None:
        self._shared = shared
        self._patch = patch
        self._copy: torch.Tensor | None = None
        self._has: SparseWeights | None = None
        """What the copy has besides the weight; None where that is unknown."""

    def with_changes(self, ops: ProductOps) -> torch.Tensor:
        """Return the weight with a task's changes; good until the next call.

        Args:
            ops: Of a task that changes the weight.
        """
        if self._copy is None:
            self._copy = torch.empty_like(self._shared)
        if ops.sparse is None:
            self._copy.copy_(self._shared)
            self._has = None
        else:
            self._patch(self._shared, ops.sparse.weights, self._copy, self._has)
            self._has = ops.sparse.weights
        if ops.dense is not None:
            self._copy.add_(ops.dense)
            self._has = None
        return self._copy
