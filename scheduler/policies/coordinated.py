"""`coordinated`: PetS's two dynamic programs (section 5): by beta within a task, by alpha across.

For engines that pad, and for the paper's figures: `packed` does better where nothing is padded.
A macro-batch may hold two mini-batches of one task; they stand together, so that an engine which
merges them saves a call and one which does not loses nothing.
"""

from functools import partial

import numpy as np
from numpy.typing import NDArray

from scheduler.cost_model import CostModel
from scheduler.macro_batching import gather_into_macro_batches
from scheduler.mini_batching import MiniBatch, split_into_mini_batches
from scheduler.planning import PlanLimits, PlanRows
from scheduler.policies.grouping import by_first_arrival


def coordinated(
    rows: PlanRows, cost_model: CostModel, limits: PlanLimits
) -> list[NDArray[np.int64]]:
    """Split each task's rows by beta, then gather the mini-batches by alpha."""
    max_macro_rows = min(limits.max_padded_rows, limits.max_batch_rows)
    max_mini_rows = min(limits.max_mini_batch_rows, max_macro_rows)
    order = by_first_arrival(rows.task_index, len(rows.pet_kinds))
    task_starts = np.flatnonzero(np.diff(rows.task_index[order])) + 1

    mini_batches: list[MiniBatch] = []
    for task_rows in np.split(order, task_starts):
        task = int(rows.task_index[task_rows[0]])
        beta = cost_model.beta_of(rows.pet_kinds[task])
        mini_batches += split_into_mini_batches(
            task,
            task_rows,
            rows.num_tokens[task_rows],
            partial(beta.by_rows, max_rows=max_mini_rows),
            max_rows=max_mini_rows,
            max_tokens=limits.max_batch_tokens,
        )
    macro_batches = gather_into_macro_batches(
        mini_batches,
        partial(cost_model.alpha.by_rows, max_rows=max_macro_rows),
        max_rows=max_macro_rows,
        max_tokens=limits.max_batch_tokens,
    )
    return [
        np.concatenate(
            [mini.row_indices for mini in sorted(macro, key=lambda mini: mini.task_index)]
        )
        for macro in macro_batches
    ]
