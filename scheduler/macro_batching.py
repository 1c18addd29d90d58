"""Macro-batches: mini-batches of several tasks, gathered by length (PetS, section 5, second stage).

Mini-batches sorted by length, c the prefix sums of their rows,
`g(i) = min over j <= i of g(j-1) + alpha[c_i - c_{j-1}][L_i]`. Only alpha is looked at.
"""

from collections.abc import Sequence

import numpy as np

from scheduler.contiguous import CostByRows, least_cost_runs
from scheduler.mini_batching import MiniBatch


def gather_into_macro_batches(
    mini_batches: Sequence[MiniBatch], alpha_ms: CostByRows, *, max_rows: int, max_tokens: int
) -> list[list[MiniBatch]]:
    """Gather mini-batches into the macro-batches with the least total backbone cost.

    Takes O(m log m + m * max_rows).

    Args:
        mini_batches: In any order; none of more than `max_rows` rows.
        alpha_ms: Cost of the backbone by rows.
        max_rows: Cap of a macro-batch; 128 in the paper.
        max_tokens: Most tokens of a macro-batch.

    Returns:
        Macro-batches ordered by length; within each the mini-batches by length too.

    Raises:
        ValueError: If a mini-batch has more than `max_rows` rows.
    """
    ordered = sorted(mini_batches, key=lambda mini_batch: mini_batch.seq_len)
    runs = least_cost_runs(
        np.array([len(mini_batch.row_indices) for mini_batch in ordered], np.int64),
        np.array([mini_batch.seq_len for mini_batch in ordered], np.int64),
        np.array([mini_batch.num_tokens for mini_batch in ordered], np.int64),
        alpha_ms,
        max_rows=max_rows,
        max_tokens=max_tokens,
    )
    return [ordered[run.start : run.stop] for run in runs]
