"""What several policies share: cutting a sequence by budget, ordering tasks by arrival."""

import numpy as np
from numpy.typing import NDArray


def cut_by_budget(num_tokens: NDArray[np.int64], *, max_rows: int, max_tokens: int) -> list[int]:
    """Fill batches greedily in the given order.

    Args:
        num_tokens: Tokens of each row, shape (n,).
        max_rows: Most rows of a batch.
        max_tokens: Most tokens of a batch; a row over it is a batch of its own.

    Returns:
        Ascending cut points, from 0 to n: batch i holds rows `cuts[i]` to `cuts[i + 1]`.
    """
    ends = np.cumsum(num_tokens)
    cuts = [0]
    spent = 0
    while cuts[-1] < len(num_tokens):
        start = cuts[-1]
        fits = int(np.searchsorted(ends, spent + max_tokens, side="right"))
        stop = max(start + 1, min(fits, start + max_rows))
        cuts.append(stop)
        spent = int(ends[stop - 1])
    return cuts


def by_first_arrival(task_index: NDArray[np.int64], num_tasks: int) -> NDArray[np.int64]:
    """Return row indices grouped by task: tasks by their first row, rows of a task as they came."""
    first_row = np.zeros(num_tasks, np.int64)
    backwards = np.arange(len(task_index) - 1, -1, -1)
    # Of several writes to one place numpy keeps the last, which here is the task's first row.
    first_row[task_index[::-1]] = backwards
    return np.argsort(first_row[task_index], kind="stable")
