"""Stage two: mini-batches into macro-batches, against brute force."""

from collections.abc import Sequence

import numpy as np
import pytest

from scheduler.contiguous import CostByRows
from scheduler.macro_batching import gather_into_macro_batches
from scheduler.mini_batching import MiniBatch
from tests.scheduler.costs import affine, contiguous_partitions, set_partitions

UNLIMITED = 1_000_000


def _mini_batch(num_rows: int, seq_len: int, task_index: int = 0) -> MiniBatch:
    return MiniBatch(task_index, np.arange(num_rows), seq_len, num_rows * seq_len)


def _random_mini_batches(seed: int, count: int) -> list[MiniBatch]:
    rng = np.random.default_rng(seed)
    return [
        _mini_batch(int(rng.integers(1, 33)), int(rng.integers(2, 80)), task)
        for task in range(count)
    ]


def _total_ms(groups: Sequence[Sequence[MiniBatch]], cost: CostByRows) -> float:
    return sum(
        float(cost(max(m.seq_len for m in group))[sum(len(m.row_indices) for m in group)])
        for group in groups
    )


def _within(groups: Sequence[Sequence[MiniBatch]], max_rows: int) -> bool:
    return all(sum(len(m.row_indices) for m in group) <= max_rows for group in groups)


@pytest.mark.parametrize("launch_ms", [0.0, 10.0, 300.0, 5000.0])
@pytest.mark.parametrize("seed", range(12))
def test_no_contiguous_grouping_is_cheaper(launch_ms: float, seed: int) -> None:
    """No contiguous grouping is cheaper."""
    mini_batches = _random_mini_batches(seed, 1 + seed % 9)
    cost = affine(launch_ms=launch_ms)

    groups = gather_into_macro_batches(mini_batches, cost, max_rows=128, max_tokens=UNLIMITED)

    by_length = sorted(mini_batches, key=lambda m: m.seq_len)
    least = min(
        _total_ms(others, cost)
        for others in contiguous_partitions(by_length)
        if _within(others, 128)
    )
    assert _within(groups, 128)
    assert _total_ms(groups, cost) == pytest.approx(least)


@pytest.mark.parametrize("launch_ms", [0.0, 50.0, 800.0])
@pytest.mark.parametrize("seed", range(6))
def test_no_grouping_at_all_is_cheaper_while_the_cap_does_not_bind(
    launch_ms: float, seed: int
) -> None:
    """All set partitions; under a binding cap contiguity is PetS's heuristic, not a theorem."""
    mini_batches = _random_mini_batches(50 + seed, 6)
    cost = affine(launch_ms=launch_ms)

    groups = gather_into_macro_batches(mini_batches, cost, max_rows=256, max_tokens=UNLIMITED)

    least = min(
        _total_ms([[mini_batches[i] for i in group] for group in indices], cost)
        for indices in set_partitions(range(len(mini_batches)))
    )
    assert _total_ms(groups, cost) == pytest.approx(least)


def test_every_mini_batch_is_in_one_group_and_lengths_ascend() -> None:
    """Every mini batch is in one group and lengths ascend."""
    mini_batches = _random_mini_batches(3, 60)

    groups = gather_into_macro_batches(
        mini_batches, affine(launch_ms=200.0), max_rows=128, max_tokens=4096
    )

    flat = [mini for group in groups for mini in group]
    assert sorted(m.task_index for m in flat) == list(range(60))
    assert [m.seq_len for m in flat] == sorted(m.seq_len for m in mini_batches)
    assert all(len(group) == 1 or sum(m.num_tokens for m in group) <= 4096 for group in groups)


def test_a_mini_batch_over_the_cap_is_refused() -> None:
    """A mini batch over the cap is refused."""
    with pytest.raises(ValueError, match="1 to 16 rows"):
        gather_into_macro_batches(
            [_mini_batch(17, 4)], affine(launch_ms=1.0), max_rows=16, max_tokens=UNLIMITED
        )


def test_no_mini_batches_make_no_macro_batches() -> None:
    """No mini batches make no macro batches."""
    assert (
        gather_into_macro_batches([], affine(launch_ms=1.0), max_rows=128, max_tokens=UNLIMITED)
        == []
    )
