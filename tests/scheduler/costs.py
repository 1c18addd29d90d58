"""Cost functions and brute-force partitions for the tests of planning."""

import itertools
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from scheduler.contiguous import CostByRows

Item = TypeVar("Item")


def affine(*, launch_ms: float, token_ms: float = 0.5) -> CostByRows:
    """So much for a batch and so much for each padded token."""

    def cost_by_rows(seq_len: int) -> NDArray[np.float64]:
        return launch_ms + token_ms * seq_len * np.arange(257, dtype=np.float64)

    return cost_by_rows


def contiguous_partitions(items: Sequence[Item]) -> Iterator[list[Sequence[Item]]]:
    """Every way to cut a sequence into runs: 2 ** (n - 1) of them."""
    for num_cuts in range(len(items)):
        for cuts in itertools.combinations(range(1, len(items)), num_cuts):
            yield [items[a:b] for a, b in itertools.pairwise((0, *cuts, len(items)))]


def set_partitions(items: Sequence[Item]) -> Iterator[list[list[Item]]]:
    """Every way to put items into groups, neighbours or not: the Bell number of n."""
    if not items:
        yield []
        return
    for rest in set_partitions(items[1:]):
        yield [[items[0]], *rest]
        for place in range(len(rest)):
            yield [*rest[:place], [items[0], *rest[place]], *rest[place + 1 :]]
