"""Least-cost partition of a sorted sequence into contiguous runs: the core of both programs.

`best[i] = min over j < i of best[j] + cost(rows of items j..i-1, length of item i-1)`: items are
sorted by length, so the last one is the longest and gives the run's padded length. Sorting makes an
optimal partition contiguous when the cost never falls with rows or length.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

CostByRows = Callable[[int], NDArray[np.float64]]
"""Maps a padded length to the cost of 0, 1, 2, ... rows of it, in milliseconds."""


class Run(NamedTuple):
    """Items `start` to `stop`, exclusive."""

    start: int
    stop: int


def least_cost_runs(
    num_rows: NDArray[np.int64],
    seq_lens: NDArray[np.int64],
    num_tokens: NDArray[np.int64],
    cost_by_rows: CostByRows,
    *,
    max_rows: int,
    max_tokens: int,
) -> list[Run]:
    """Partition the items into the runs with the least total cost. Takes O(n * max_rows).

    Args:
        num_rows: Rows of each item, at least 1, shape (n,).
        seq_lens: Longest row of each item, ascending, shape (n,).
        num_tokens: Real tokens of each item, shape (n,).
        cost_by_rows: Must return at least `max_rows + 1` costs.
        max_rows: Most rows of a run.
        max_tokens: Most real tokens of a run; an item over it is a run of its own.

    Returns:
        The runs, in order. Of equal partitions the one with the longest last run.

    Raises:
        ValueError: If the lengths do not ascend, or an item has more than `max_rows` rows.
    """
    count = len(seq_lens)
    if count == 0:
        return []
    if np.any(np.diff(seq_lens) < 0):
        raise ValueError("expected items in ascending order of length")
    if num_rows.max() > max_rows or num_rows.min() < 1:
        raise ValueError(f"expected items of 1 to {max_rows} rows")
    rows_before = np.concatenate(([0], np.cumsum(num_rows)))
    tokens_before = np.concatenate(([0], np.cumsum(num_tokens)))
    earliest = np.maximum(
        np.searchsorted(rows_before, rows_before[1:] - max_rows, side="left"),
        np.searchsorted(tokens_before, tokens_before[1:] - max_tokens, side="left"),
    )
    earliest = np.minimum(earliest, np.arange(count)).tolist()
    lengths = seq_lens.tolist()

    best = np.zeros(count + 1)
    start_of = [0] * count
    for item in range(count):
        first = earliest[item]
        rows = rows_before[item + 1] - rows_before[first : item + 1]
        costs = best[first : item + 1] + cost_by_rows(lengths[item])[rows]
        choice = int(costs.argmin())
        best[item + 1] = costs[choice]
        start_of[item] = first + choice

    runs: list[Run] = []
    stop = count
    while stop:
        runs.append(Run(start_of[stop - 1], stop))
        stop = start_of[stop - 1]
    runs.reverse()
    return runs
