"""Mini-batches: the queries of one task, split by length (PetS, section 5, first stage).

Queries sorted by length, `f(j) = min over k <= j of f(k-1) + beta[kind][j-k+1][l_j]`. Only beta is
looked at; the backbone's cost is the matter of `scheduler.macro_batching`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scheduler.contiguous import CostByRows, least_cost_runs


@dataclass(frozen=True, slots=True)
class MiniBatch:
    """Rows of one task that make one PET call; `seq_len` is the longest of them."""

    task_index: int
    row_indices: NDArray[np.int64]
    seq_len: int
    num_tokens: int


def split_into_mini_batches(
    task_index: int,
    row_indices: NDArray[np.int64],
    seq_lens: NDArray[np.int64],
    beta_ms: CostByRows,
    *,
    max_rows: int,
    max_tokens: int,
) -> list[MiniBatch]:
    """Partition one task's rows into the mini-batches with the least total PET cost.

    Takes O(n log n + n * max_rows).

    Args:
        task_index: Told on, not looked at.
        row_indices: The rows, shape (n,).
        seq_lens: Tokens of each row, at least 1, in any order, shape (n,).
        beta_ms: Cost of the task's kind by rows.
        max_rows: Cap of a mini-batch; 32 in the paper.
        max_tokens: Most tokens of a mini-batch.

    Returns:
        Mini-batches ordered by length. Empty where there are no rows.

    Raises:
        ValueError: If a length is less than 1.
    """
    if len(seq_lens) and seq_lens.min() < 1:
        raise ValueError(f"expected lengths of at least 1, got {seq_lens.min()}")
    order = np.argsort(seq_lens, kind="stable")
    sorted_lens = seq_lens[order]
    runs = least_cost_runs(
        np.ones(len(order), np.int64),
        sorted_lens,
        sorted_lens,
        beta_ms,
        max_rows=max_rows,
        max_tokens=max_tokens,
    )
    return [
        MiniBatch(
            task_index,
            row_indices[order[run.start : run.stop]],
            int(sorted_lens[run.stop - 1]),
            int(sorted_lens[run.start : run.stop].sum()),
        )
        for run in runs
    ]
