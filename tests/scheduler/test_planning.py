"""What every policy owes, whatever it is: hypothesis draws windows and limits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from scheduler.cost_model import PET_KINDS, CostModel, CostTable, default_cost_model
from scheduler.planning import PlanLimits, PlanRows, plan
from scheduler.policies.catalogue import DEFAULT_POLICY, POLICIES

COSTS = default_cost_model()


@st.composite
def _windows(draw: st.DrawFn) -> PlanRows:
    num_tasks = draw(st.integers(1, 12))
    size = draw(st.integers(0, 150))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    longest = draw(st.sampled_from([1, 2, 16, 128, 512]))
    return PlanRows(
        task_index=rng.integers(0, num_tasks, size),
        num_tokens=rng.integers(1, longest + 1, size),
        pet_kinds=tuple(rng.choice(PET_KINDS, num_tasks).tolist()),
    )


limits = st.builds(
    PlanLimits,
    max_batch_rows=st.integers(1, 300),
    max_batch_tokens=st.sampled_from([1, 64, 512, 4096]),
    max_padded_rows=st.integers(1, 160),
    max_mini_batch_rows=st.integers(1, 40),
)


@pytest.mark.parametrize("name", POLICIES)
@settings(max_examples=60, deadline=None)
@given(rows=_windows(), limits=limits)
def test_each_row_once_grouped_by_task_and_within_limits(
    name: str, rows: PlanRows, limits: PlanLimits
) -> None:
    """Each row once grouped by task and within limits."""
    batches = plan(rows, COSTS, POLICIES[name], limits)

    planned = [index for batch in batches for index in batch.row_indices.tolist()]
    assert sorted(planned) == list(range(len(rows)))
    for batch in batches:
        tasks = rows.task_index[batch.row_indices]
        assert np.count_nonzero(np.diff(tasks)) + 1 == len(np.unique(tasks))
        assert batch.num_tokens == rows.num_tokens[batch.row_indices].sum()
        assert batch.predicted_ms > 0
        assert len(batch.row_indices) <= limits.max_batch_rows
        if len(batch.row_indices) > 1:
            assert batch.num_tokens <= limits.max_batch_tokens


@pytest.mark.parametrize("name", POLICIES)
def test_the_same_window_gives_the_same_plan(name: str) -> None:
    """The same window gives the same plan."""
    rows = _uniform_window(500, 20)

    first, again = (plan(rows, COSTS, POLICIES[name], PlanLimits()) for _ in range(2))

    assert [b.row_indices.tolist() for b in first] == [b.row_indices.tolist() for b in again]


@pytest.mark.parametrize("name", POLICIES)
def test_a_longer_window_never_costs_less(name: str) -> None:
    """Monotone: rows added at the end of a window add to its predicted cost."""
    rows = _uniform_window(400, 16)

    costs = [
        sum(b.predicted_ms for b in plan(_head(rows, size), COSTS, POLICIES[name], PlanLimits()))
        for size in range(0, 401, 50)
    ]

    assert costs == sorted(costs)


def test_packed_splits_at_most_one_task_at_each_cut() -> None:
    """The bound its docstring states: PET calls are at most tasks + batches - 1."""
    rows = _uniform_window(4096, 64)

    batches = plan(rows, COSTS, POLICIES["packed"], PlanLimits())

    calls = sum(len(np.unique(rows.task_index[b.row_indices])) for b in batches)
    assert calls <= 64 + len(batches) - 1
    assert len(batches) < sum(rows.num_tokens) / 4096 * 1.1 + 1


def test_packed_serves_the_task_that_came_first_first() -> None:
    """Packed serves the task that came first first."""
    rows = PlanRows(np.array([5, 2, 5, 0, 2]), np.full(5, 10), ("lora",) * 6)

    (batch,) = plan(rows, COSTS, POLICIES["packed"], PlanLimits())

    assert batch.row_indices.tolist() == [0, 2, 1, 4, 3]


def test_fixed_keeps_arrival_order_between_chunks_of_32() -> None:
    """Fixed keeps arrival order between chunks of 32."""
    rows = _uniform_window(70, 4)

    batches = plan(rows, COSTS, POLICIES["fixed"], PlanLimits())

    assert [sorted(b.row_indices.tolist()) for b in batches] == [
        list(range(32)),
        list(range(32, 64)),
        list(range(64, 70)),
    ]


def test_coordinated_beats_fixed_where_lengths_and_tasks_are_mixed() -> None:
    """By the paper's own measure: padded alpha per batch, one beta per mini-batch."""
    rows = _uniform_window(1024, 64)

    cost = {
        name: _padded_ms(rows, [b.row_indices for b in plan(rows, COSTS, POLICIES[name], LIMITS)])
        for name in ("fixed", "coordinated")
    }

    assert cost["coordinated"] < 0.8 * cost["fixed"]


@pytest.mark.parametrize(
    ("beta_call_ms", "expected"), [(1000.0, [[0, 1]]), (0.0, [[0], [1]])], ids=["dear", "free"]
)
def test_coordinated_keeps_together_what_one_pet_call_should_do(
    beta_call_ms: float, expected: list[list[int]]
) -> None:
    """A short and a long row of one task, which alpha alone would never pad to each other."""
    grid, lens = np.array([1.0, 128.0]), np.array([1.0, 128.0])
    alpha = CostTable.from_measured(grid, lens, np.outer(grid, lens))
    beta = CostTable.from_measured(grid, lens, beta_call_ms + 0.001 * np.outer(grid, lens))
    rows = PlanRows(np.zeros(2, np.int64), np.array([5, 100]), ("lora",))

    batches = plan(rows, CostModel(alpha, {"lora": beta}), POLICIES["coordinated"], PlanLimits())

    assert [sorted(batch.row_indices.tolist()) for batch in batches] == expected


def test_a_batch_is_predicted_to_cost_alpha_and_one_beta_for_each_task() -> None:
    """Read at mean lengths, each task with its own kind's table."""
    grid, lens = np.array([1.0, 128.0]), np.array([1.0, 128.0])
    alpha = CostTable.from_measured(grid, lens, 7 + np.outer(grid, lens))
    lora = CostTable.from_measured(grid, lens, 100 + 0.1 * np.outer(grid, lens))
    mask = CostTable.from_measured(grid, lens, 1000 + 0.5 * np.outer(grid, lens))
    rows = PlanRows(np.array([0, 1, 0, 2]), np.array([10, 20, 30, 40]), ("lora", "mask", "lora"))

    (batch,) = plan(
        rows, CostModel(alpha, {"lora": lora, "mask": mask}), POLICIES["packed"], PlanLimits()
    )

    assert batch.predicted_ms == pytest.approx(
        (7 + 100) + (100 + 0.1 * 40) + (1000 + 0.5 * 20) + (100 + 0.1 * 40)
    )


def test_packed_fills_a_batch_to_its_last_token() -> None:
    """A budget of 40 tokens holds four rows of 10, and the next batch four more."""
    rows = PlanRows(np.zeros(10, np.int64), np.full(10, 10), ("lora",))

    batches = plan(rows, COSTS, POLICIES["packed"], PlanLimits(max_batch_tokens=40))

    assert [len(batch.row_indices) for batch in batches] == [4, 4, 2]


def test_a_policy_that_loses_a_row_is_found_out() -> None:
    """A policy that loses a row is found out."""

    def careless(rows: PlanRows, _costs: CostModel, _limits: PlanLimits) -> list[NDArray[np.int64]]:
        return [np.arange(len(rows) - 1)]

    with pytest.raises(ValueError, match="not each once"):
        plan(_uniform_window(5, 2), COSTS, careless, PlanLimits())


def test_a_policy_that_repeats_a_row_is_found_out() -> None:
    """A policy that repeats a row is found out."""

    def careless(
        _rows: PlanRows, _costs: CostModel, _limits: PlanLimits
    ) -> list[NDArray[np.int64]]:
        return [np.array([0, 1, 1])]

    with pytest.raises(ValueError, match="not each once"):
        plan(_uniform_window(3, 2), COSTS, careless, PlanLimits())


def test_the_default_is_one_of_the_policies() -> None:
    """The default is one of the policies."""
    assert DEFAULT_POLICY in POLICIES


def test_limits_below_one_are_refused() -> None:
    """Limits below one are refused."""
    with pytest.raises(ValueError, match="at least 1"):
        PlanLimits(max_batch_tokens=0)


LIMITS = PlanLimits(max_batch_tokens=1_000_000)


def _uniform_window(size: int, num_tasks: int) -> PlanRows:
    rng = np.random.default_rng(size + num_tasks)
    return PlanRows(
        rng.integers(0, num_tasks, size),
        np.clip(rng.normal(32, 8, size).astype(np.int64), 3, 128),
        tuple(rng.choice(PET_KINDS, num_tasks).tolist()),
    )


def _head(rows: PlanRows, size: int) -> PlanRows:
    return PlanRows(rows.task_index[:size], rows.num_tokens[:size], rows.pet_kinds)


def _padded_ms(rows: PlanRows, batches: list[NDArray[np.int64]]) -> float:
    total = 0.0
    for batch in batches:
        lengths, tasks = rows.num_tokens[batch], rows.task_index[batch]
        total += float(COSTS.alpha.at(len(batch), lengths.max()))
        for task in np.unique(tasks):
            of_task = lengths[tasks == task]
            total += float(COSTS.beta_of(rows.pet_kinds[task]).at(len(of_task), of_task.max()))
    return total
