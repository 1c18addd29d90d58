"""From how many rows on a sparse change is cheaper written into a copy of the weight.

A sparse product costs time by the row; a patched copy costs the same for any number of rows, and
replaces the shared product instead of adding to it. Where the two meet depends on the processor
and on how dense the change is, so it is measured when a task is loaded, once per shape and
density (by powers of two).
"""

import time
from collections.abc import Callable

import torch

from gpu_ops.spans import Span
from gpu_ops.sparse_delta import SparseWeights, add_sparse_delta_, patch_weight
from workers.backbone import LinearWeights
from workers.linear_backends import Linear, LinearOp

_FEW_ROWS, _MANY_ROWS = 16, 128
_REPEATS = 3
NEVER = 1 << 30


class SparsePolicy:
    """Remembers the break-even of each shape and density. Used from one thread at a time."""

    def __init__(self) -> None:
        self._break_even_rows: dict[tuple[int, int, int], int] = {}

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
        key = (num_out, num_in, len(delta.values).bit_length())
        if key not in self._break_even_rows:
            self._break_even_rows[key] = _measure(delta, shared, linear, unpacked)
        return self._break_even_rows[key]


def _measure(
    delta: SparseWeights, shared: LinearWeights, linear: Linear, unpacked: LinearOp
) -> int:
    """Measure both ways at two row counts, and return where lines through them cross."""
    extra_us: list[float] = []
    for rows in (_FEW_ROWS, _MANY_ROWS):
        x = torch.randn(rows, shared.weight.shape[1])

        def sparse(x: torch.Tensor = x) -> None:
            add_sparse_delta_(linear(x), x, [Span(0, len(x))], [delta])

        def patched(x: torch.Tensor = x) -> None:
            copy = patch_weight(shared.weight, delta, torch.empty_like(shared.weight))
            unpacked(x, copy, shared.bias)

        extra_us.append(_thread_us(sparse) - _thread_us(patched))
    few, many = extra_us
    if few >= 0:
        return 0
    if many <= few:
        return NEVER
    return round(_FEW_ROWS - few * (_MANY_ROWS - _FEW_ROWS) / (many - few))


def _thread_us(work: Callable[[], None]) -> float:
    """Return the CPU time of this thread, microseconds, the least of a few tries."""
    work()
    best_s = float("inf")
    for _ in range(_REPEATS):
        started_s = time.thread_time()
        work()
        best_s = min(best_s, time.thread_time() - started_s)
    return 1e6 * best_s
