"""Where batches go: to the partition with the least predicted work before it."""

import pytest

from scheduler.placement import Placement


def test_equal_batches_go_round_in_order() -> None:
    """Equal batches go round in order."""
    placement = Placement(3)

    assert [placement.pick(1.0) for _ in range(7)] == [0, 1, 2, 0, 1, 2, 0]


def test_a_long_batch_keeps_its_partition_free_of_others_until_they_have_caught_up() -> None:
    """A long batch keeps its partition free of others until they have caught up."""
    placement = Placement(2)

    assert [placement.pick(cost) for cost in (10.0, 4.0, 4.0, 4.0, 1.0)] == [0, 1, 1, 1, 0]


def test_it_stays_fair_however_long_it_runs() -> None:
    """Sums that only grew would one day swallow a small batch's cost."""
    placement = Placement(3)
    for _ in range(3):
        placement.pick(1e17)

    assert sorted(placement.pick(0.001) for _ in range(3)) == [0, 1, 2]


def test_a_pool_without_partitions_is_refused() -> None:
    """A pool without partitions is refused."""
    with pytest.raises(ValueError, match="at least one partition"):
        Placement(0)
