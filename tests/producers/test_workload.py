"""Planned load: the statistics it claims, the seed it keeps."""

from collections.abc import Callable
from itertools import count, islice

import numpy as np
import pytest

from messages.query import Query, QueryParameters
from producers.workload import (
    TimedQuery,
    in_order,
    plan_load,
    poisson_arrivals_s,
    zipf_shares,
)

QUERIES = [
    Query("1", "often", "a"),
    Query("2", "seldom", "c c c", "pair"),
    Query("3", "often", "b b", parameters=QueryParameters(level=1)),
    Query("4", "rare", "d"),
    Query("5", "rare", "e"),
    Query("6", "rare", "f"),
]


def numbered() -> Callable[[], str]:
    """Ids that a test can foresee."""
    numbers = count()
    return lambda: f"n{next(numbers)}"


def plan(**options: float) -> list[TimedQuery]:
    """Return a plan over `QUERIES`."""
    settings = {"rate_per_s": 100, "count": 100, "seed": 1} | options
    return list(plan_load(QUERIES, new_id=numbered(), **settings))  # type: ignore[arg-type]


def test_gaps_are_those_of_a_poisson_process() -> None:
    """Mean 1/rate, and a standard deviation equal to the mean: not a metronome."""
    arrivals_s = np.fromiter(poisson_arrivals_s(250.0, seed=3), dtype=np.float64, count=40_000)

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


def test_tasks_and_texts_are_drawn_by_their_shares() -> None:
    """Tasks by the rank of their first query, queries of a task evenly."""
    drawn = [timed.query for timed in plan(count=30_000)]

    ranks = np.array([["often", "seldom", "rare"].index(query.task) for query in drawn])
    assert np.bincount(ranks) / len(drawn) == pytest.approx(zipf_shares(3, 1.0), abs=0.01)
    of_rare = [query.text for query in drawn if query.task == "rare"]
    shares = [of_rare.count(text) / len(of_rare) for text in "def"]
    assert shares == pytest.approx([1 / 3] * 3, abs=0.03)


def test_a_drawn_query_is_the_given_one_under_a_new_id() -> None:
    """Text, pair and parameters stay together; no id is used twice."""
    given = {(q.task, q.text, q.text_pair, q.parameters) for q in QUERIES}

    drawn = [timed.query for timed in plan()]

    assert {(q.task, q.text, q.text_pair, q.parameters) for q in drawn} <= given
    assert [q.id for q in drawn] == [f"n{n}" for n in range(100)]


def test_a_seed_repeats_the_run_and_another_does_not() -> None:
    """Seeds make runs comparable."""
    assert plan(seed=7) == plan(seed=7)
    assert plan(seed=7) != plan(seed=8)


def test_the_rate_changes_the_times_and_not_the_texts() -> None:
    """So a sweep over rates asks the same questions at each."""
    slow, fast = plan(rate_per_s=1), plan(rate_per_s=100)

    assert [timed.query for timed in slow] == [timed.query for timed in fast]
    slow_s, fast_s = (
        [timed.at_s or 0.0 for timed in timed_queries] for timed_queries in (slow, fast)
    )
    assert slow_s == pytest.approx([at_s * 100 for at_s in fast_s])


def test_queries_keep_their_order_and_take_the_times_of_the_process() -> None:
    """An endless source is drawn from only as far as it is used."""
    endless = (Query(str(number), "t", "text") for number in count())

    timed = list(islice(in_order(endless, rate_per_s=50, seed=9), 5))

    assert [t.query.id for t in timed] == ["0", "1", "2", "3", "4"]
    assert [t.at_s for t in timed] == list(islice(poisson_arrivals_s(50, seed=9), 5))
    assert next(endless).id == "5"
    assert [t.at_s for t in in_order(QUERIES)] == [None] * len(QUERIES)


def test_wrong_use_is_refused() -> None:
    """No queries, no rate, a negative exponent."""
    with pytest.raises(ValueError, match="expected tasks"):
        list(plan_load([], rate_per_s=1, count=1))
    with pytest.raises(ValueError, match="positive rate"):
        plan(rate_per_s=0)
    with pytest.raises(ValueError, match="exponent >= 0"):
        plan(zipf_exponent=-1)
