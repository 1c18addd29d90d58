"""From how many rows on a sparse change is cheaper written into a copy of the weight.

A sparse product costs time by the row; a patched copy costs the same for any number of rows, and
replaces the shared product instead of adding to it. Where the two meet depends on the processor
and on how dense the change is. It is measured when the engine starts, at two densities for each
shape of weight: a measurement takes some 100 ms of a core, which a task that is added while
others are served must not cost them. All costs are linear in the number of changes, so two
densities tell of all.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from gpu_ops.spans import Span
from gpu_ops.sparse_delta import (
    SparseWeights,
    add_sparse_delta_,
    changed_values,
    patch_weight,
    sparse_weights,
)
from gpu_ops.task_products import LinearOp
from workers.backbone import LinearWeights
from workers.break_even import FEW_ROWS, MANY_ROWS, crossing, gains_us
from workers.linear_backends import Linear

_DENSITIES = (0.005, 0.05)
"""Those of diff pruning and of MaskBERT."""


@dataclass(frozen=True, slots=True)
class SharedProduct:
    """A product of the backbone that tasks may change."""

    weights: LinearWeights
    linear: Linear
    """The product with them."""
    unpacked: LinearOp
    """The product with a patched copy."""


@dataclass(frozen=True, slots=True)
class _Measured:
    """By how much the patched copy was faster at one density, microseconds."""

    num_changed: int
    few_rows_us: float
    many_rows_us: float


class SparsePolicy:
    """Knows the break-even of each shape and density. May be used from any thread."""

    def __init__(self, products: Iterable[SharedProduct]) -> None:
        """Measure; `products` has one of each shape."""
        self._measured: dict[tuple[torch.Size, bool], list[_Measured]] = {}
        for product in products:
            for is_dropped in (False, True):
                self._measured[product.weights.weight.shape, is_dropped] = [
                    _measure(product, _change(product.weights.weight, density, is_dropped))
                    for density in _DENSITIES
                ]

    def break_even_rows(self, delta: SparseWeights, shape: torch.Size) -> int:
        """Return the number of rows from which a patched copy is the faster way.

        Args:
            delta: A change.
            shape: (out, in) of the weight that it changes.
        """
        thin, dense = self._measured[shape, delta.values is None]
        share = (delta.num_changed - thin.num_changed) / (dense.num_changed - thin.num_changed)
        few_us = thin.few_rows_us + share * (dense.few_rows_us - thin.few_rows_us)
        many_us = thin.many_rows_us + share * (dense.many_rows_us - thin.many_rows_us)
        return crossing(FEW_ROWS, few_us, MANY_ROWS, many_us)


def _change(weight: torch.Tensor, density: float, is_dropped: bool) -> SparseWeights:
    """Return a change of evenly spread weights."""
    num_out, num_in = weight.shape
    num_changed = max(1, round(density * weight.numel()))
    flat_indices = torch.linspace(0, weight.numel() - 1, num_changed, dtype=torch.float64)
    values = None if is_dropped else torch.ones(num_changed, dtype=torch.float16)
    return sparse_weights(flat_indices.to(torch.int32), values, (num_out, num_in))


def _measure(product: SharedProduct, delta: SparseWeights) -> _Measured:
    shared = product.weights
    values = changed_values(delta, shared.weight)

    def beside(x: torch.Tensor) -> None:
        add_sparse_delta_(product.linear(x), x, [Span(0, len(x))], [delta], [values])

    def patched(x: torch.Tensor) -> None:
        copy = patch_weight(shared.weight, delta, torch.empty_like(shared.weight))
        product.unpacked(x, copy, shared.bias)

    return _Measured(delta.num_changed, *gains_us(beside, patched, shared.weight.shape[1]))
