"""From the rows of a window to macro-batches. Pure: no clock, no input or output, no torch.

A policy decides which rows share a batch and in which order batches leave; `plan` holds what every
policy owes: each row in exactly one batch, rows of one task together, no batch over the limits
(a single row excepted), and a predicted cost for placement.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scheduler.cost_model import CostModel


@dataclass(frozen=True, slots=True)
class PlanRows:
    """The rows of one level in a window, as columns, in order of arrival."""

    task_index: NDArray[np.int64]
    """Index into `pet_kinds`, shape (num_rows,)."""
    num_tokens: NDArray[np.int64]
    """Tokens with the special ones, at least 1, shape (num_rows,)."""
    pet_kinds: tuple[str, ...]
    """PET kind of each task."""

    def __len__(self) -> int:
        return len(self.task_index)


@dataclass(frozen=True, slots=True)
class PlanLimits:
    """What a batch may hold.

    Raises:
        ValueError: If a limit is less than 1, or a mini-batch may be larger than its macro-batch.
    """

    max_batch_rows: int = 256
    max_batch_tokens: int = 4096
    max_padded_rows: int = 128
    """Rows of a macro-batch planned with PetS's tables (its cap)."""
    max_mini_batch_rows: int = 32
    """Rows of a mini-batch (PetS's cap), and of a chunk of the `fixed` policy."""

    def __post_init__(self) -> None:
        smallest = min(self.max_batch_rows, self.max_padded_rows, self.max_mini_batch_rows)
        if smallest < 1 or self.max_batch_tokens < 1:
            raise ValueError(f"expected limits of at least 1, got {self}")


Policy = Callable[[PlanRows, CostModel, PlanLimits], list[NDArray[np.int64]]]
"""Returns the row indices of each batch, in the order in which batches should leave."""


@dataclass(frozen=True, slots=True)
class MacroBatch:
    """Rows that one worker runs in one pass over the backbone."""

    row_indices: NDArray[np.int64]
    """Indices into the planned rows; rows of one task stand together."""
    num_tokens: int
    predicted_ms: float


def plan(
    rows: PlanRows, cost_model: CostModel, policy: Policy, limits: PlanLimits
) -> list[MacroBatch]:
    """Partition `rows` into macro-batches by `policy`.

    Raises:
        ValueError: If the policy lost or repeated a row.
    """
    if len(rows) == 0:
        return []
    batches = policy(rows, cost_model, limits)
    order = np.concatenate(batches)
    if len(order) != len(rows) or np.any(np.bincount(order, minlength=len(rows)) != 1):
        raise ValueError(f"the policy planned {len(order)} rows of {len(rows)}, not each once")
    sizes = np.array([len(batch) for batch in batches])
    batch_of_row = np.repeat(np.arange(len(batches)), sizes)
    tokens = np.bincount(batch_of_row, weights=rows.num_tokens[order])
    costs_ms = predict_ms(rows, order, batch_of_row, len(batches), cost_model)
    return [
        MacroBatch(batch, int(num_tokens), float(cost_ms))
        for batch, num_tokens, cost_ms in zip(batches, tokens, costs_ms, strict=True)
    ]


def predict_ms(
    rows: PlanRows,
    order: NDArray[np.int64],
    batch_of_row: NDArray[np.int64],
    num_batches: int,
    cost_model: CostModel,
) -> NDArray[np.float64]:
    """Predict each batch's latency on an engine without padding.

    Alpha and beta are read at the mean length, since such an engine's work depends on the tokens
    there are, not on the longest row; rows of one task in a batch are one PET call.

    Args:
        rows: The planned rows.
        order: Row indices of all batches, one after another, shape (num_rows,).
        batch_of_row: The batch of each place of `order`, shape (num_rows,).
        num_batches: Number of batches.
        cost_model: Of the level's backbone.

    Returns:
        Milliseconds, shape (num_batches,).
    """
    num_tasks = len(rows.pet_kinds)
    call_of_row = batch_of_row * num_tasks + rows.task_index[order]
    call_rows = np.bincount(call_of_row, minlength=num_batches * num_tasks)
    call_tokens = np.bincount(
        call_of_row, weights=rows.num_tokens[order], minlength=num_batches * num_tasks
    )
    calls = np.flatnonzero(call_rows)
    batch_rows = np.bincount(batch_of_row)
    batch_tokens = np.bincount(batch_of_row, weights=rows.num_tokens[order])
    costs_ms = cost_model.alpha.at(batch_rows, batch_tokens / batch_rows)

    kinds = list(dict.fromkeys(rows.pet_kinds))
    kind_of_task = np.array([kinds.index(kind) for kind in rows.pet_kinds])
    kind_of_call = kind_of_task[calls % num_tasks]
    for number, kind in enumerate(kinds):
        of_kind = calls[kind_of_call == number]
        call_ms = cost_model.beta_of(kind).at(
            call_rows[of_kind], call_tokens[of_kind] / call_rows[of_kind]
        )
        costs_ms += np.bincount(of_kind // num_tasks, weights=call_ms, minlength=num_batches)
    return costs_ms
