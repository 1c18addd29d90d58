"""Stage one: a task's rows into mini-batches, against brute force."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from scheduler.contiguous import CostByRows
from scheduler.mini_batching import MiniBatch, split_into_mini_batches
from tests.scheduler.costs import affine, contiguous_partitions, set_partitions

UNLIMITED = 1_000_000


def _split(
    seq_lens: Sequence[int],
    cost: CostByRows,
    *,
    max_rows: int = 64,
    max_tokens: int = UNLIMITED,
) -> list[MiniBatch]:
    return split_into_mini_batches(
        0,
        np.arange(len(seq_lens)),
        np.array(seq_lens, np.int64),
        cost,
        max_rows=max_rows,
        max_tokens=max_tokens,
    )


def _total_ms(groups: Sequence[Sequence[int]], cost: CostByRows) -> float:
    return sum(float(cost(max(group))[len(group)]) for group in groups)


@pytest.mark.parametrize("launch_ms", [0.0, 10.0, 100.0, 1000.0])
@pytest.mark.parametrize("seed", range(12))
def test_no_contiguous_partition_is_cheaper(launch_ms: float, seed: int) -> None:
    """Oracle over every choice of cut points, with launch costs that make each term matter."""
    rng = np.random.default_rng(seed)
    seq_lens = rng.integers(1, 60, size=int(rng.integers(1, 10))).tolist()
    cost = affine(launch_ms=launch_ms)

    batches = _split(seq_lens, cost)

    planned = [[seq_lens[i] for i in batch.row_indices] for batch in batches]
    least = min(_total_ms(groups, cost) for groups in contiguous_partitions(sorted(seq_lens)))
    assert _total_ms(planned, cost) == pytest.approx(least)


@pytest.mark.parametrize("launch_ms", [0.0, 5.0, 40.0, 400.0])
@pytest.mark.parametrize("seed", range(6))
def test_no_set_partition_is_cheaper(launch_ms: float, seed: int) -> None:
    """Contiguity after sorting is the program's assumption; this oracle does not share it."""
    rng = np.random.default_rng(100 + seed)
    seq_lens = rng.integers(1, 60, size=int(rng.integers(1, 8))).tolist()
    cost = affine(launch_ms=launch_ms)

    batches = _split(seq_lens, cost)

    planned = [[seq_lens[i] for i in batch.row_indices] for batch in batches]
    assert _total_ms(planned, cost) == pytest.approx(
        min(_total_ms(groups, cost) for groups in set_partitions(seq_lens))
    )


@pytest.mark.parametrize("max_rows", [1, 2, 3])
@pytest.mark.parametrize("max_tokens", [20, 60, UNLIMITED])
def test_caps_are_kept_and_optimal_among_partitions_that_keep_them(
    max_rows: int, max_tokens: int
) -> None:
    """A launch so dear that without caps everything would be one batch."""
    seq_lens = [3, 9, 11, 14, 20, 22, 30, 31]
    cost = affine(launch_ms=500.0)

    batches = _split(seq_lens, cost, max_rows=max_rows, max_tokens=max_tokens)

    def allowed(group: Sequence[int]) -> bool:
        return len(group) == 1 or (len(group) <= max_rows and sum(group) <= max_tokens)

    planned = [[seq_lens[i] for i in batch.row_indices] for batch in batches]
    least = min(
        _total_ms(groups, cost)
        for groups in contiguous_partitions(seq_lens)
        if all(allowed(group) for group in groups)
    )
    assert all(allowed(group) for group in planned)
    assert _total_ms(planned, cost) == pytest.approx(least)


def test_a_dearer_launch_never_makes_more_batches() -> None:
    """A dearer launch never makes more batches."""
    seq_lens = np.random.default_rng(5).integers(1, 120, size=40).tolist()

    counts = [len(_split(seq_lens, affine(launch_ms=ms))) for ms in (0, 1, 10, 100, 1000)]

    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[-1] == 1


def test_a_batch_tells_its_longest_row_and_its_tokens() -> None:
    """A batch tells its longest row and its tokens."""
    (batch,) = _split([7, 3, 5], affine(launch_ms=1000.0))

    assert batch.row_indices.tolist() == [1, 2, 0]
    assert (batch.seq_len, batch.num_tokens) == (7, 15)


def test_no_rows_make_no_batches() -> None:
    """No rows make no batches."""
    assert _split([], affine(launch_ms=1.0)) == []


def test_a_length_below_one_is_refused() -> None:
    """A length below one is refused."""
    with pytest.raises(ValueError, match="at least 1"):
        _split([4, 0], affine(launch_ms=1.0))


@pytest.mark.parametrize("shape", [np.sqrt, np.log1p, np.square])
def test_costs_need_not_be_affine(shape: Callable[[float], float]) -> None:
    """Any cost that never falls will do, as a measured table has steps and bends."""
    seq_lens = [2, 2, 9, 17, 17, 40, 41]

    def cost(seq_len: int) -> NDArray[np.float64]:
        return np.array([3.0 + float(shape(n * seq_len)) for n in range(65)])

    batches = _split(seq_lens, cost)

    planned = [[seq_lens[i] for i in batch.row_indices] for batch in batches]
    least = min(_total_ms(groups, cost) for groups in contiguous_partitions(seq_lens))
    assert _total_ms(planned, cost) == pytest.approx(least)
