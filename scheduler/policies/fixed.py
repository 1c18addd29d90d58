"""`fixed`: arrival order, a chunk at a time; the baseline of PetS's figures.

Departs from the paper's artifact in that the last, incomplete chunk is planned and not dropped.
"""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from scheduler.cost_model import CostModel
from scheduler.planning import PlanLimits, PlanRows
from scheduler.policies.grouping import cut_by_budget


def fixed(rows: PlanRows, _cost_model: CostModel, limits: PlanLimits) -> list[NDArray[np.int64]]:
    """Chunk the rows as they came; rows of one task within a chunk are put together."""
    cuts = cut_by_budget(
        rows.num_tokens,
        max_rows=min(limits.max_mini_batch_rows, limits.max_batch_rows),
        max_tokens=limits.max_batch_tokens,
    )
    return [
        start + np.argsort(rows.task_index[start:stop], kind="stable")
        for start, stop in pairwise(cuts)
    ]
