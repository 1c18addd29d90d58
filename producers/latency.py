"""Latencies of a load run, exactly: every one is kept, and a percentile is one of them.

A load run holds at most some millions of queries, eight bytes each, so there is no need for a
histogram with its rounding.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class LatencySummary:
    """Percentiles in milliseconds; infinite where that share of the queries never answered."""

    p50: float
    p90: float
    p99: float
    p999: float
    max: float


def percentile(sorted_values: NDArray[np.float64], share: float) -> float:
    """Return the smallest value that at least `share` of all values do not exceed.

    Args:
        sorted_values: Ascending, not empty.
        share: In (0, 1].

    Raises:
        ValueError: If there are no values or `share` is out of range.
    """
    if not len(sorted_values) or not 0 < share <= 1:
        raise ValueError(
            f"expected values and a share in (0, 1], got {len(sorted_values)}, {share}"
        )
    # Shares such as 0.999 have no exact binary form: 0.999 * 1000 is a little over 999.
    rank = math.ceil(share * len(sorted_values) - 1e-9)
    return float(sorted_values[rank - 1])


def summarise(latencies_ms: Sequence[float], num_unanswered: int = 0) -> LatencySummary | None:
    """Summarise a run, counting each unanswered query as infinitely late.

    Leaving the unanswered ones out would make a service look the faster the more it drops.

    Returns:
        None where nothing was asked.
    """
    values = np.sort(np.asarray(latencies_ms, dtype=np.float64))
    values = np.concatenate([values, np.full(num_unanswered, np.inf)])
    if not len(values):
        return None
    shares = (0.5, 0.9, 0.99, 0.999, 1.0)
    return LatencySummary(*(percentile(values, share) for share in shares))
