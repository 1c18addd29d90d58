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


def test_what_is_measured_replaces_what_was_counted() -> None:
    """Partition 0 got as much as the others, but its worker is slow and it is not done."""
    placement = Placement(3)
    for _ in range(6):
        placement.pick(2.0)

    placement.observe({0: 3, 1: 1})

    assert [placement.pick(2.0) for _ in range(3)] == [2, 1, 2]


def test_partitions_left_out_of_a_measurement_are_idle() -> None:
    """Partitions left out of a measurement are idle."""
    placement = Placement(2)
    placement.pick(100.0)

    placement.observe({})

    assert placement.pick(1.0) == 0


def test_what_others_published_counts_before_the_first_own_batch() -> None:
    """What others published counts before the first own batch."""
    placement = Placement(2)

    placement.observe({0: 2})

    assert placement.pick(1.0) == 1


def test_a_pool_without_partitions_is_refused() -> None:
    """A pool without partitions is refused."""
    with pytest.raises(ValueError, match="at least one partition"):
        Placement(0)
