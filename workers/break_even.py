"""From how many rows on one way to a result is faster than another, by two measurements of each."""

from collections.abc import Mapping
from typing import NamedTuple

NEVER = 1 << 30

FEW_ROWS, MANY_ROWS = 16, 192


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
        """Return the number of rows from which the way for many rows is the faster one.

        Both are taken to be linear in the rows, between the two measured and beyond.

        Returns:
            0 where it is faster for any number of rows, `NEVER` where for none.
        """
        few_us, many_us = self
        if few_us >= 0 and many_us >= 0 and many_us <= few_us:
            return 0
        if many_us <= few_us:
            return NEVER
        crossing = FEW_ROWS - few_us * (MANY_ROWS - FEW_ROWS) / (many_us - few_us)
        return max(0, round(crossing))
