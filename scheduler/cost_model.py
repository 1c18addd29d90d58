"""Predicted latency of a batch: alpha for the shared backbone, beta for the work of one PET.

(PetS, section 5: `BatchLatency(B) = alpha[N][L] + sum over tasks of beta[kind][n][l]`, N rows of
L tokens.) The tables are measured on the machine that serves (`petstream profile`) and read by
`scheduler.profile_file`; without a profile `default_cost_model` has the right shape and no claim
to the right scale. Two departures from the paper: between grid points the tables are interpolated
bilinearly (PetS takes the next larger point), and they are made monotone, because the dynamic
programs are only exact for costs that never fall with rows or length.

Pure: no clock, no input or output.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

PET_KINDS = ("adapter", "bitfit", "diff", "ia3", "lora", "mask")
"""The kinds that are measured."""

COSTED_LIKE: Mapping[str, str] = {
    "adalora": "lora",
    "compacter": "adapter",
    "dora": "lora",
    "layer_norm": "bitfit",
    "prefix": "lora",
}
"""Kinds that run the operators of a measured one. Any other costs as much as the costliest."""

# Milliseconds. Only ratios matter for planning: one launch of the backbone is worth about 40
# tokens of it, and one PET call costs less than a launch.
_DEFAULT_LAUNCH_MS = 1.0
_DEFAULT_TOKEN_MS = 0.025
_DEFAULT_PET_CALL_MS = 0.2
_DEFAULT_PET_TOKEN_MS: Mapping[str, float] = {
    "adapter": 0.003,
    "bitfit": 0.0005,
    "diff": 0.004,
    "ia3": 0.0005,
    "lora": 0.0015,
    "mask": 0.008,
}


@dataclass(frozen=True)
class CostTable:
    """Latency by rows and tokens per row.

    Invariant: both grids ascend strictly and have at least two points; `cost_ms` is finite,
    never negative, and never falls along either axis.
    """

    num_rows: NDArray[np.float64]
    """Grid of batch sizes, shape (R,)."""
    seq_lens: NDArray[np.float64]
    """Grid of tokens per row, shape (S,)."""
    cost_ms: NDArray[np.float64]
    """Shape (R, S)."""
    _rows_cache: dict[tuple[int, int], NDArray[np.float64]] = field(
        default_factory=dict, repr=False, compare=False
    )

    @classmethod
    def from_measured(
        cls, num_rows: ArrayLike, seq_lens: ArrayLike, cost_ms: ArrayLike
    ) -> "CostTable":
        """Make a table of measured values, raised where noise made them fall.

        Raises:
            ValueError: If a grid does not ascend, or a value is missing, negative or not finite.
        """
        rows, lens = np.asarray(num_rows, np.float64), np.asarray(seq_lens, np.float64)
        costs = np.asarray(cost_ms, np.float64)
        for name, grid in (("rows", rows), ("lengths", lens)):
            if grid.ndim != 1 or len(grid) < 2 or grid[0] < 1 or np.any(np.diff(grid) <= 0):
                raise ValueError(f"expected at least two ascending {name} from 1, got {grid}")
        if costs.shape != (len(rows), len(lens)):
            raise ValueError(f"expected costs of shape {(len(rows), len(lens))}, got {costs.shape}")
        if not np.all(np.isfinite(costs)) or np.any(costs < 0):
            raise ValueError("expected finite costs of at least 0 ms")
        monotone = np.maximum.accumulate(np.maximum.accumulate(costs, axis=0), axis=1)
        return cls(rows, lens, monotone)

    def at(self, num_rows: ArrayLike, seq_len: ArrayLike) -> NDArray[np.float64]:
        """Interpolate; beyond the grid the cost grows with the tokens, below it the first holds.

        Args:
            num_rows: Batch sizes, any shape.
            seq_len: Tokens per row, of a shape that broadcasts with `num_rows`.

        Returns:
            Milliseconds, in the broadcast shape.
        """
        row, row_share, beyond_rows = _locate(self.num_rows, np.asarray(num_rows, np.float64))
        length, length_share, beyond_len = _locate(self.seq_lens, np.asarray(seq_len, np.float64))
        shorter = self.cost_ms[row, length] * (1 - row_share)
        shorter = shorter + self.cost_ms[row + 1, length] * row_share
        longer = self.cost_ms[row, length + 1] * (1 - row_share)
        longer = longer + self.cost_ms[row + 1, length + 1] * row_share
        # Slopes that go on in both directions may cross and fall; this product never does.
        scale: NDArray[np.float64] = beyond_rows * beyond_len
        return scale * (shorter * (1 - length_share) + longer * length_share)

    def by_rows(self, seq_len: int, max_rows: int) -> NDArray[np.float64]:
        """Cost of 0..max_rows rows of `seq_len` tokens, shape (max_rows + 1,); kept for reuse."""
        key = (seq_len, max_rows)
        costs = self._rows_cache.get(key)
        if costs is None:
            costs = self.at(np.arange(max_rows + 1), float(seq_len))
            costs[0] = 0.0
            self._rows_cache[key] = costs
        return costs


def _locate(
    grid: NDArray[np.float64], values: NDArray[np.float64]
) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]:
    """Return each value's grid cell, its share of the way through it, and its ratio beyond it."""
    # Not by `np.clip`: on the few values that there are, it takes several times as long.
    cell = np.maximum(np.minimum(grid.searchsorted(values, side="right"), len(grid) - 1) - 1, 0)
    low = grid[cell]
    share = np.minimum(np.maximum((values - low) / (grid[cell + 1] - low), 0.0), 1.0)
    return cell, share, np.maximum(values / grid[-1], 1.0)


@dataclass(frozen=True)
class CostModel:
    """Alpha and beta of one backbone on one device."""

    alpha: CostTable
    beta: Mapping[str, CostTable]
    """By PET kind; at least one."""

    def beta_of(self, pet_kind: str) -> CostTable:
        """Return the table of a kind, or of one like it, or else the costliest there is."""
        table = self.beta.get(COSTED_LIKE.get(pet_kind, pet_kind))
        if table is None:
            table = max(self.beta.values(), key=lambda known: float(known.cost_ms.sum()))
        return table


def default_cost_model() -> CostModel:
    """Return the built-in shape: a launch (or a PET call), plus so much for each token."""
    rows, lens = np.array([1.0, 128.0]), np.array([4.0, 128.0])
    tokens = np.outer(rows, lens)
    return CostModel(
        alpha=CostTable.from_measured(rows, lens, _DEFAULT_LAUNCH_MS + _DEFAULT_TOKEN_MS * tokens),
        beta={
            kind: CostTable.from_measured(rows, lens, _DEFAULT_PET_CALL_MS + token_ms * tokens)
            for kind, token_ms in _DEFAULT_PET_TOKEN_MS.items()
        },
    )
