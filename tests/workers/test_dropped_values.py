"""Values of masks: the backbone's, read again only where they were not kept."""

import torch

from gpu_ops.sparse_delta import SparseWeights, sparse_weights
from workers.dropped_values import DroppedValues

WEIGHT = torch.arange(24.0).view(4, 6)
NUM_DROPPED = 3
NUM_BYTES = 4 * NUM_DROPPED


def mask(first: int) -> SparseWeights:
    """A mask of three weights."""
    return sparse_weights(torch.tensor([first, first + 5, first + 10]).int(), None, (4, 6))


def test_values_are_those_of_the_weight_taken_away() -> None:
    """Each dropped w has -w added."""
    assert DroppedValues().of(mask(1), WEIGHT).tolist() == [-1.0, -6.0, -11.0]


def test_the_masks_used_last_are_kept() -> None:
    """Within the budget, in the order of use."""
    values = DroppedValues(limit_bytes=2 * NUM_BYTES)
    a, b, c = mask(0), mask(1), mask(2)
    of_a, of_b = values.of(a, WEIGHT), values.of(b, WEIGHT)
    values.of(a, WEIGHT)
    values.of(c, WEIGHT)

    assert values.of(a, WEIGHT) is of_a
    again = values.of(b, WEIGHT)
    assert again is not of_b
    assert again.equal(of_b)


def test_what_exceeds_the_budget_alone_is_not_kept() -> None:
    """It is read each time."""
    values = DroppedValues(limit_bytes=NUM_BYTES - 1)
    large = mask(0)

    assert values.of(large, WEIGHT) is not values.of(large, WEIGHT)


def test_values_that_a_change_has_itself_are_not_copied() -> None:
    """Those of a diff take no room here."""
    stored = torch.tensor([1.0, 2.0])
    diff = sparse_weights(torch.tensor([0, 7]).int(), stored, (4, 6))

    assert DroppedValues(limit_bytes=0).of(diff, WEIGHT) is stored
