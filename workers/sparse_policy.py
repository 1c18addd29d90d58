"""From how many rows on a sparse change is cheaper written into a copy of the weight.

A sparse product costs time by the row; a patched copy costs the same for any number of rows, and
replaces the shared product instead of adding to it. Where the two meet depends on the processor
and on how dense the change is, so it is measured when a task is loaded, once per shape and
density (by powers of two).
"""

import threading

import torch

from gpu_ops.spans import Span
from gpu_ops.sparse_delta import (
    SparseWeights,
    add_sparse_delta_,
    changed_values,
    patch_weight,
)
from gpu_ops.task_products import LinearOp
from workers.backbone import LinearWeights
from workers.break_even import break_even_rows
from workers.linear_backends import Linear


class SparsePolicy:
    """Remembers the break-even of each shape and density. May be used from any thread."""

    def __init__(self) -> None:
        self._break_even_rows: dict[tuple[int, int, int, bool], int] = {}
        # One measurement at a time, which another would disturb.
        self._lock = threading.Lock()

    def break_even_rows(
        self, delta: SparseWeights, shared: LinearWeights, linear: Linear, unpacked: LinearOp
    ) -> int:
        """Return the number of rows from which a patched copy is the faster way.

        Args:
            delta: A change of `shared`.
            shared: The shared weights.
            linear: The product with them.
            unpacked: The product with a patched copy.
        """
        num_out, num_in = shared.weight.shape
        key = (num_out, num_in, delta.num_changed.bit_length(), delta.values is None)
        with self._lock:
            if key not in self._break_even_rows:
                self._break_even_rows[key] = _measure(delta, shared, linear, unpacked)
            return self._break_even_rows[key]


def _measure(
    delta: SparseWeights, shared: LinearWeights, linear: Linear, unpacked: LinearOp
) -> int:
    values = changed_values(delta, shared.weight)

    def beside(x: torch.Tensor) -> None:
        add_sparse_delta_(linear(x), x, [Span(0, len(x))], [delta], [values])

    def patched(x: torch.Tensor) -> None:
        copy = patch_weight(shared.weight, delta, torch.empty_like(shared.weight))
        unpacked(x, copy, shared.bias)

    return break_even_rows(beside, patched, shared.weight.shape[1])
