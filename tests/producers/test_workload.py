"""Planned load: the statistics it claims, the seed it keeps."""

import numpy as np
import pytest

from producers.workload import Row, plan_load, poisson_arrivals_s, zipf_shares

ROWS = {
    "often": [Row("a"), Row("b b")],
    "seldom": [Row("c c c", "pair")],
    "rare": [Row("d"), Row("e"), Row("f")],
}


def test_gaps_are_those_of_a_poisson_process() -> None:
    """Mean 1/rate, and a standard deviation equal to the mean: not a metronome."""
    arrivals_s = poisson_arrivals_s(250.0, 40_000, seed=3)

    gaps = np.diff(arrivals_s, prepend=0.0)

    assert (gaps > 0).all()
    assert gaps.mean() == pytest.approx(1 / 250, rel=0.02)
    assert gaps.std() == pytest.approx(1 / 250, rel=0.03)
    # Memoryless: what went before says nothing about the next gap.
    assert abs(np.corrcoef(gaps[:-1], gaps[1:])[0, 1]) < 0.02


@pytest.mark.parametrize("exponent", [0.0, 0.7, 1.0, 1.5])
def test_zipf_ratios(exponent: float) -> None:
    """The first of rank r is asked r ** exponent times as often as rank r."""
    shares = zipf_shares(5, exponent)

    assert shares.sum() == pytest.approx(1.0)
    assert (shares[0] / shares).tolist() == pytest.approx([r**exponent for r in range(1, 6)])


def test_tasks_and_rows_are_drawn_by_their_shares() -> None:
    """Tasks by rank, rows of a task evenly, every text with its own task."""
    plan = list(plan_load(ROWS, rate_per_s=100, count=30_000, zipf_exponent=1.0, seed=5))

    drawn = np.array([list(ROWS).index(query.task) for query in plan])
    assert np.bincount(drawn) / len(plan) == pytest.approx(zipf_shares(3, 1.0), abs=0.01)
    assert all(query.row in ROWS[query.task] for query in plan)
    of_rare = [query.row for query in plan if query.task == "rare"]
    assert all(
        of_rare.count(row) / len(of_rare) == pytest.approx(1 / 3, abs=0.03) for row in ROWS["rare"]
    )


def test_a_seed_repeats_the_run_and_another_does_not() -> None:
    """Seeds make runs comparable."""
    first, again, other = (
        list(plan_load(ROWS, rate_per_s=10, count=50, seed=seed)) for seed in (7, 7, 8)
    )

    assert first == again
    assert first != other


def test_the_rate_changes_the_times_and_not_the_texts() -> None:
    """So a sweep over rates asks the same questions at each."""
    slow = list(plan_load(ROWS, rate_per_s=1, count=100, seed=1))
    fast = list(plan_load(ROWS, rate_per_s=100, count=100, seed=1))

    assert [(q.task, q.row) for q in slow] == [(q.task, q.row) for q in fast]
    assert [q.at_s for q in slow] == pytest.approx([q.at_s * 100 for q in fast])


def test_wrong_use_is_refused() -> None:
    """No rows, no tasks, no rate."""
    with pytest.raises(ValueError, match="none for bare"):
        list(plan_load({"bare": []}, rate_per_s=1, count=1))
    with pytest.raises(ValueError, match="expected tasks"):
        list(plan_load({}, rate_per_s=1, count=1))
    with pytest.raises(ValueError, match="positive rate"):
        list(plan_load(ROWS, rate_per_s=0, count=1))
