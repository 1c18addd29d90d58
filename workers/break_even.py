"""From how many rows on one way to a result is faster than another, measured on this machine."""

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch

Way = Callable[[torch.Tensor], object]
"""Takes x of shape (rows, in)."""

NEVER = 1 << 30

FEW_ROWS, MANY_ROWS = 16, 192
_REPEATS = 5


class Gains(NamedTuple):
    """By how much the way for many rows is faster, microseconds; negative where it is slower."""

    few_rows_us: float
    """With `FEW_ROWS` rows."""
    many_rows_us: float
    """With `MANY_ROWS` rows."""

    @classmethod
    def of(cls, figures: Mapping[str, float]) -> "Gains":
        """Read them back from the figures of a machine, where they stand by name."""
        return cls(figures["few_rows_us"], figures["many_rows_us"])

    def break_even_rows(self) -> int:
        """Return the number of rows from which the way for many rows is the faster one."""
        return crossing(FEW_ROWS, self.few_rows_us, MANY_ROWS, self.many_rows_us)


def gains_us(for_few: Way, for_many: Way, num_in: int, dtype: torch.dtype) -> Gains:
    """Time both ways at two row counts; they are taken to be linear in between and beyond.

    Args:
        for_few: The way with the smaller fixed cost.
        for_many: The way with the smaller cost by the row.
        num_in: Width of the input.
        dtype: Of the input.

    Returns:
        In CPU time of this thread.
    """
    few_us, many_us = (
        _thread_us(for_few, x) - _thread_us(for_many, x)
        for x in (torch.randn(rows, num_in).to(dtype) for rows in (FEW_ROWS, MANY_ROWS))
    )
    return Gains(few_us, many_us)


def crossing(few_rows: int, few_us: float, many_rows: int, many_us: float) -> int:
    """Return where the line through two differences of time reaches zero.

    Args:
        few_rows: A number of rows.
        few_us: By how much the way for many rows is faster there; negative where it is slower.
        many_rows: A larger number of rows.
        many_us: The same there.

    Returns:
        0 where it is faster for any number of rows, `NEVER` where for none.
    """
    if few_us >= 0:
        return 0 if many_us >= 0 else NEVER
    if many_us <= few_us:
        return NEVER
    return round(few_rows - few_us * (many_rows - few_rows) / (many_us - few_us))


def _thread_us(way: Way, x: torch.Tensor) -> float:
    """Return the CPU time of this thread, microseconds, the least of a few tries."""
    way(x)
    best_s = float("inf")
    for _ in range(_REPEATS):
        started_s = time.thread_time()
        way(x)
        best_s = min(best_s, time.thread_time() - started_s)
    return 1e6 * best_s
