"""What weights are expanded to: done again only where it was not kept."""

import weakref

import torch

from gpu_ops.bottleneck import BottleneckWeights
from gpu_ops.compacter import CompacterWeights, KroneckerFactors, whole_weight
from gpu_ops.sparse_delta import SparseWeights, sparse_weights
from workers.expanded_weights import ExpandedWeights

WEIGHT = torch.arange(24.0).view(4, 6)
NUM_DROPPED = 3
NUM_BYTES = 4 * NUM_DROPPED


def mask(first: int) -> SparseWeights:
    """A mask of three weights."""
    return sparse_weights(torch.tensor([first, first + 5, first + 10]).int(), None, (4, 6))


def test_values_are_those_of_the_weight_taken_away() -> None:
    """Each dropped w has -w added."""
    assert ExpandedWeights(torch.float32).values(mask(1), WEIGHT).tolist() == [-1.0, -6.0, -11.0]


def test_the_masks_used_last_are_kept() -> None:
    """Within the budget, in the order of use."""
    expanded = ExpandedWeights(torch.float32, limit_bytes=2 * NUM_BYTES)
    a, b, c = mask(0), mask(1), mask(2)
    of_a, of_b = expanded.values(a, WEIGHT), expanded.values(b, WEIGHT)
    expanded.values(a, WEIGHT)
    expanded.values(c, WEIGHT)

    assert expanded.values(a, WEIGHT) is of_a
    again = expanded.values(b, WEIGHT)
    assert again is not of_b
    assert again.equal(of_b)


def test_what_exceeds_the_budget_alone_is_not_kept() -> None:
    """It is read each time."""
    expanded = ExpandedWeights(torch.float32, limit_bytes=NUM_BYTES - 1)
    large = mask(0)

    assert expanded.values(large, WEIGHT) is not expanded.values(large, WEIGHT)


def test_values_that_a_change_has_itself_are_not_copied() -> None:
    """Those of a diff take no room here."""
    stored = torch.tensor([1.0, 2.0])
    diff = sparse_weights(torch.tensor([0, 7]).int(), stored, (4, 6))

    assert ExpandedWeights(torch.float32, limit_bytes=0).values(diff, WEIGHT) is stored


def test_a_compacter_is_multiplied_out_and_kept() -> None:
    """In float32; with the values of masks in one budget, the ones used last."""
    factors = KroneckerFactors(
        torch.randn(2, 2, 2).half(), torch.randn(2, 3, 1).half(), torch.randn(2, 1, 3).half()
    )
    held = CompacterWeights(factors, torch.ones(6).half(), factors, torch.ones(6), "gelu")
    num_bytes = 4 * 2 * (6 * 6 + 6)
    expanded = ExpandedWeights(torch.float32, limit_bytes=num_bytes + NUM_BYTES - 1)

    adapter = expanded.adapter(held)

    assert adapter.down_weight.equal(whole_weight(factors))
    assert adapter.up_bias.dtype == adapter.down_bias.dtype == torch.float32
    assert expanded.adapter(held) is adapter
    expanded.values(mask(0), WEIGHT)
    assert expanded.adapter(held) is not adapter


def test_an_adapter_that_is_whole_is_not_copied() -> None:
    """It takes no room here."""
    one = torch.ones(2)
    adapter = BottleneckWeights(one, one, one, one, "relu")

    assert ExpandedWeights(torch.float32, limit_bytes=0).adapter(adapter) is adapter


def test_what_leaves_memory_takes_along_what_was_made_of_it() -> None:
    """A task that was evicted keeps nothing here, and room is there for another."""
    expanded = ExpandedWeights(torch.float32, limit_bytes=2 * NUM_BYTES)
    leaving, staying = mask(0), mask(1)
    of_leaving = weakref.ref(expanded.values(leaving, WEIGHT))
    of_staying = expanded.values(staying, WEIGHT)

    del leaving

    assert of_leaving() is None
    expanded.values(mask(2), WEIGHT)
    assert expanded.values(staying, WEIGHT) is of_staying
