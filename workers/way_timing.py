"""Times two ways to the same result, for few rows and for many."""

import time
from collections.abc import Callable

import torch

from workers.break_even import FEW_ROWS, MANY_ROWS, Gains

Way = Callable[[torch.Tensor], object]
"""Takes x of shape (rows, in)."""

_REPEATS = 9


def gains_us(for_few: Way, for_many: Way, num_in: int, dtype: torch.dtype) -> Gains:
    """Return by how much the way for many rows is faster, in CPU time of this thread.

    Args:
        for_few: The way with the smaller fixed cost.
        for_many: The way with the smaller cost by the row.
        num_in: Width of the input.
        dtype: Of the input.
    """
    few_us, many_us = (
        _gain_us(for_few, for_many, torch.randn(rows, num_in).to(dtype))
        for rows in (FEW_ROWS, MANY_ROWS)
    )
    return Gains(few_us, many_us)


def _gain_us(one: Way, other: Way, x: torch.Tensor) -> float:
    """Return by how much the other way is faster: least times, taken in turns."""
    one(x)
    other(x)
    pairs = [(_thread_s(one, x), _thread_s(other, x)) for _ in range(_REPEATS)]
    return 1e6 * (min(pair[0] for pair in pairs) - min(pair[1] for pair in pairs))


def _thread_s(way: Way, x: torch.Tensor) -> float:
    started_s = time.thread_time()
    way(x)
    return time.thread_time() - started_s
