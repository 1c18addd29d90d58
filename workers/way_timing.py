"""Times ways to the same result, in turns."""

import time
from collections.abc import Callable, Hashable, Mapping
from functools import partial
from typing import TypeVar

import torch

from workers.break_even import FEW_ROWS, MANY_ROWS, Gains

Way = Callable[[torch.Tensor], object]
"""Takes x of shape (rows, in)."""

_Name = TypeVar("_Name", bound=Hashable)

_REPEATS = 9


def least_us(ways: Mapping[_Name, Callable[[], object]], repeats: int) -> dict[_Name, float]:
    """Return the least CPU time of this thread that each way took, microseconds.

    They are run in turns, so that a slow moment of the machine falls on all alike, and once before,
    since a first call may build a kernel.

    Args:
        ways: By name.
        repeats: Timed runs of each.
    """
    for way in ways.values():
        way()
    times_s: dict[_Name, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            started_s = time.thread_time()
            way()
            times_s[name].append(time.thread_time() - started_s)
    return {name: 1e6 * min(of_way) for name, of_way in times_s.items()}


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
    """Return by how much the other way is faster."""
    taken_us = least_us({"one": partial(one, x), "other": partial(other, x)}, _REPEATS)
    return taken_us["one"] - taken_us["other"]
