"""Merged weights are kept for what is used most, within their budget."""

import gc
from collections.abc import Callable

import pytest
import torch

from gpu_ops.sparse_delta import sparse_weights
from workers import merged_weights
from workers.linear_backends import Linear
from workers.merged_weights import MIN_USES, MergedWeights
from workers.task_ops import SparseChange

SIZE = 100


def change() -> SparseChange:
    return SparseChange(sparse_weights(torch.tensor([1, 7]).int(), None, (4, 6)))


class Merging:
    """Makes products, and knows how many."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> Linear:
        """Return its argument as it is."""
        self.count += 1
        return lambda x: x


def use(kept: MergedWeights, one: SparseChange, merge: Callable[[], Linear], times: int) -> bool:
    """Use a change several times; tell whether its product is kept by then."""
    products = [kept.product_of(one, SIZE, merge) for _ in range(times)]
    return products[-1] is not None


def test_a_change_is_merged_once_it_was_used_often() -> None:
    kept, merge, one = MergedWeights(SIZE), Merging(), change()

    assert not use(kept, one, merge, MIN_USES - 1)
    assert use(kept, one, merge, 1)
    assert use(kept, one, merge, 100)
    assert (merge.count, kept.num_bytes) == (1, SIZE)


def test_a_merge_that_fails_takes_no_room() -> None:
    def fail() -> Linear:
        raise MemoryError

    kept, merge, one = MergedWeights(SIZE), Merging(), change()
    use(kept, one, merge, MIN_USES - 1)

    with pytest.raises(MemoryError):
        kept.product_of(one, SIZE, fail)

    assert kept.num_bytes == 0
    assert use(kept, one, merge, 1)


@pytest.mark.parametrize("limit", [0, SIZE - 1])
def test_what_does_not_fit_is_never_merged(limit: int) -> None:
    kept, merge = MergedWeights(limit), Merging()

    assert not use(kept, change(), merge, 100)
    assert merge.count == 0


def test_changes_that_come_in_turn_do_not_push_one_another_out() -> None:
    """With room for two of five, two stay."""
    kept, merge = MergedWeights(2 * SIZE), Merging()
    changes = [change() for _ in range(5)]

    for _ in range(50):
        for one in changes:
            use(kept, one, merge, 1)

    assert merge.count == 2
    assert [use(kept, one, merge, 1) for one in changes].count(True) == 2


def test_one_that_is_used_far_more_takes_the_place_of_the_coldest() -> None:
    kept, merge = MergedWeights(2 * SIZE), Merging()
    cold, warm, hot = change(), change(), change()
    use(kept, cold, merge, MIN_USES)
    use(kept, warm, merge, 10 * MIN_USES)

    assert not use(kept, hot, merge, 2 * MIN_USES)
    assert use(kept, hot, merge, 1)

    assert kept.num_bytes == 2 * SIZE
    assert use(kept, warm, merge, 1)
    assert not use(kept, cold, merge, 1)


def test_what_was_hot_long_ago_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merged_weights, "USES_BETWEEN_HALVINGS", 10)
    kept, merge = MergedWeights(SIZE), Merging()
    before, now = change(), change()
    use(kept, before, merge, 1000)

    use(kept, now, merge, 1000)

    assert use(kept, now, merge, 1)
    assert not use(kept, before, merge, 1)


def test_what_leaves_memory_frees_its_room() -> None:
    kept, merge = MergedWeights(SIZE), Merging()
    leaving, staying = change(), change()
    use(kept, leaving, merge, 1000)

    del leaving
    gc.collect()

    assert kept.num_bytes == 0
    assert use(kept, staying, merge, MIN_USES)
