"""`packed`, the default: grouped by task, filled to a token budget; for engines without padding.

There the cost of a batch does not depend on which lengths share it: what counts is the number of
batches and the number of (task, batch) pairs, each a PET call. Grouping by task and filling
greedily splits at most one task at each cut, so the total is at most the optimum plus
(batches - 1) PET calls.
"""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from scheduler.cost_model import CostModel
from scheduler.planning import PlanLimits, PlanRows
from scheduler.policies.grouping import by_first_arrival, cut_by_budget


def packed(rows: PlanRows, _cost_model: CostModel, limits: PlanLimits) -> list[NDArray[np.int64]]:
    """Group the rows by task and cut by the budget. Takes O(n log n), all of it in numpy."""
    order = by_first_arrival(rows.task_index, len(rows.pet_kinds))
    cuts = cut_by_budget(
        rows.num_tokens[order],
        max_rows=limits.max_batch_rows,
        max_tokens=limits.max_batch_tokens,
    )
    return [order[start:stop] for start, stop in pairwise(cuts)]
