"""Percentiles are values that were measured, and the unanswered count."""

import math

import numpy as np
import pytest

from producers.latency import percentile, summarise


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100, 999, 1000, 1001, 12_345])
def test_percentiles_agree_with_numpys_inverted_cdf(size: int) -> None:
    """The definition is the plain one: the smallest value that the share does not exceed."""
    values = np.sort(np.random.default_rng(size).exponential(size=size))

    summary = summarise(values.tolist())

    assert summary is not None
    expected = np.quantile(values, [0.5, 0.9, 0.99, 0.999, 1.0], method="inverted_cdf")
    actual = [summary.p50, summary.p90, summary.p99, summary.p999, summary.max]
    assert actual == expected.tolist()


def test_one_in_a_thousand_is_the_value_at_that_rank() -> None:
    """0.999 of 1,000 values is the 999th, although 0.999 has no exact binary form."""
    assert percentile(np.arange(1.0, 1001.0), 0.999) == 999


def test_unanswered_queries_are_infinitely_late() -> None:
    """A service that drops one query in a hundred has no finite p99.9."""
    summary = summarise([1.0] * 990, num_unanswered=10)

    assert summary is not None
    assert (summary.p50, summary.p99) == (1.0, 1.0)
    assert math.isinf(summary.p999)


def test_nothing_asked_has_no_summary() -> None:
    """An empty run is no run of latency zero."""
    assert summarise([]) is None


@pytest.mark.parametrize(("values", "share"), [([], 0.5), ([1.0], 0.0), ([1.0], 1.1)])
def test_a_percentile_of_nothing_is_refused(values: list[float], share: float) -> None:
    """Wrong use raises."""
    with pytest.raises(ValueError, match="expected values and a share"):
        percentile(np.array(values), share)
