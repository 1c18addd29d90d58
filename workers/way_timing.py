"""Times two ways to the same result, for few rows and for many."""

import time
from collections.abc import Callable

import torch

from workers.break_even import FEW_ROWS, MANY_ROWS, Gains

Way = Callable[[torch.Tensor], object]
"""Takes x of shape (rows, in)."""

_REPEATS = 5


def gains_us(for_few: Way, for_many: Way, num_in: int, dtype: torch.dtype) -> Gains:
    """Return by how much the way for many rows is faster, in CPU time of this thread.

    Args:
        for_few: The way with the smaller fixed cost.
        for_many: The way with the smaller cost by the row.
        num_in: Width of the input.
        dtype: Of the input.
    """
    few_us, many_us = (
        _thread_us(for_few, x) - _thread_us(for_many, x)
        for x in (torch.randn(rows, num_in).to(dtype) for rows in (FEW_ROWS, MANY_ROWS))
    )
    return Gains(few_us, many_us)


def _thread_us(way: Way, x: torch.Tensor) -> float:
    """Return the CPU time of this thread, microseconds, the least of a few tries."""
    way(x)
    best_s = float("inf")
    for _ in range(_REPEATS):
        started_s = time.thread_time()
        way(x)
        best_s = min(best_s, time.thread_time() - started_s)
    return 1e6 * best_s
