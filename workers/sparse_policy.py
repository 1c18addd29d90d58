"""From how many rows on a sparse change is cheaper in a copy of the weight than beside it.

A sparse product costs time by the row; a patched copy costs the same for any number of rows. One of
the whole weight takes the task's rows out of the shared product, too, where each costs what a row
costs among many; one of a panel at a time, within the compiled product, does not. Where they meet
depends on the processor and on how dense the change is. It is measured before the engine serves, at
two densities for each shape of weight: a measurement takes some 100 ms of a core, which a task that
is added while others are served must not cost them. All costs are linear in the number of changes,
so two densities tell of all.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch

from gpu_ops.compiled.product import PackedProduct
from gpu_ops.spans import Span
from gpu_ops.sparse_delta import SparseWeights, sparse_weights
from workers.break_even import FEW_ROWS, MANY_ROWS, Gains
from workers.linear_backends import Linear, UnpackedLinear
from workers.machine_figures import MachineFigures
from workers.operators import Operators
from workers.torch_dtypes import dtype_name
from workers.way_timing import least_us

_DENSITIES = (0.005, 0.05)
"""Those of diff pruning and of MaskBERT."""
_REPEATS = 9


@dataclass(frozen=True, slots=True)
class SharedProduct:
    """A product of the backbone that tasks may change."""

    weight: torch.Tensor
    """Shape (out, in), float32: changes are written into a copy of it."""
    bias: torch.Tensor
    """Shape (out,), of the type that is computed in."""
    linear: Linear
    """The product with both."""
    unpacked: UnpackedLinear
    """The product with a patched copy, where the shared one takes no changes itself."""
    backends: str
    """Of both (`LinearChoice.names`)."""
    share_among_many: float
    """What a row costs among those of a whole slice, of what it costs among `MANY_ROWS`."""


class BreakEvens(NamedTuple):
    """From how many rows on another way is faster than a sparse product beside the shared one."""

    patch_from_rows: int
    """A copy of the weight, patched for this use."""
    keep_from_rows: int
    """A copy that was patched before, faster than either."""


@dataclass(frozen=True, slots=True)
class _Measured:
    """By how much copies were faster at one density."""

    num_changed: int
    patched: Gains
    kept: Gains


class SparsePolicy:
    """Knows the break-even of each shape and density. May be used from any thread."""

    def __init__(
        self, products: Iterable[SharedProduct], operators: Operators, figures: MachineFigures
    ) -> None:
        """Measure what was not yet measured.

        Args:
            products: One of each shape.
            operators: Those that the engine runs with.
            figures: Those of this machine.
        """
        self._measured: dict[tuple[torch.Size, bool], list[_Measured]] = {}
        for product in products:
            for is_dropped in (False, True):
                self._measured[product.weight.shape, is_dropped] = [
                    _measured(product, density, operators, figures, is_dropped=is_dropped)
                    for density in _DENSITIES
                ]

    def break_evens(self, delta: SparseWeights, shape: torch.Size) -> BreakEvens:
        """Return the numbers of rows from which copies are the faster way, `FEW_ROWS` at least.

        With fewer they were not measured, and a copy costs the same for a single row.

        Args:
            delta: A change.
            shape: (out, in) of the weight that it changes.
        """
        thin, dense = self._measured[shape, delta.values is None]
        share = (delta.num_changed - thin.num_changed) / (dense.num_changed - thin.num_changed)
        patched = _between(thin.patched, dense.patched, share)
        kept = _between(thin.kept, dense.kept, share)
        over_patched = Gains(*(one - other for one, other in zip(kept, patched, strict=True)))
        return BreakEvens(
            max(FEW_ROWS, patched.break_even_rows()),
            max(FEW_ROWS, kept.break_even_rows(), over_patched.break_even_rows()),
        )


def _between(thin: Gains, dense: Gains, share: float) -> Gains:
    pairs = zip(thin, dense, strict=True)
    return Gains(*(at_thin + share * (at_dense - at_thin) for at_thin, at_dense in pairs))


def _measured(
    product: SharedProduct,
    density: float,
    operators: Operators,
    figures: MachineFigures,
    *,
    is_dropped: bool,
) -> _Measured:
    weight = product.weight
    delta = _change(weight, density, is_dropped)
    what, (num_out, num_in) = "drop" if is_dropped else "change", weight.shape
    compiled = [name for name in ("patch", "sparse product") if name in operators.compiled]
    name = (
        f"{what} {density:g} of {num_out}x{num_in} {dtype_name(product.bias.dtype)} "
        f"{product.backends}, compiled: {' and '.join(compiled) or 'none'}"
    )
    if compiled:
        name = f"{name} of {operators.library}"

    def gains(is_kept: bool) -> dict[str, float]:
        if not is_kept and isinstance(product.linear, PackedProduct):
            return _gains_within(product.linear, product, delta, operators)._asdict()
        way = product.linear if is_kept else _patched(product, delta, operators)
        return _gains_apart(way, product, delta, operators)._asdict()

    return _Measured(
        delta.num_changed,
        Gains.of(figures.measured(f"{name}, patched", partial(gains, is_kept=False))),
        Gains.of(figures.measured(f"{name}, kept", partial(gains, is_kept=True))),
    )


def _patched(product: SharedProduct, delta: SparseWeights, operators: Operators) -> Linear:
    """Return the product with a copy of the weight that is patched each time."""
    weight, bias = product.weight, product.bias

    def multiply(x: torch.Tensor) -> torch.Tensor:
        copy = operators.patch_weight(weight, delta, torch.empty_like(weight))
        return product.unpacked.op(x, copy.to(bias.dtype), bias)

    return multiply


def _gains_within(
    linear: PackedProduct, product: SharedProduct, delta: SparseWeights, operators: Operators
) -> Gains:
    """Return what is gained by patching panels of the shared product over a product beside it."""

    def beside(x: torch.Tensor) -> None:
        add = operators.add_sparse_delta_
        add(linear(x), x, [Span(0, len(x))], [delta], product.weight)

    def within(x: torch.Tensor) -> None:
        linear.with_changes(x, [Span(0, len(x))], [delta])

    num_in = product.weight.shape[1]
    few, many = (torch.randn(rows, num_in) for rows in (FEW_ROWS, MANY_ROWS))
    us = least_us(
        {
            "beside few": partial(beside, few),
            "within few": partial(within, few),
            "beside many": partial(beside, many),
            "within many": partial(within, many),
        },
        _REPEATS,
    )
    return Gains(us["beside few"] - us["within few"], us["beside many"] - us["within many"])


def _gains_apart(
    way: Linear, product: SharedProduct, delta: SparseWeights, operators: Operators
) -> Gains:
    """Return what is gained by a product of the task's own rows, which leave the shared one.

    There they cost what a row costs among many: the batch is of many tasks. What is computed apart
    is copied to its place among the others.
    """
    weight, bias = product.weight, product.bias
    outputs = torch.zeros(MANY_ROWS, weight.shape[0], dtype=bias.dtype)

    def beside(x: torch.Tensor) -> None:
        operators.add_sparse_delta_(outputs[: len(x)], x, [Span(0, len(x))], [delta], weight)

    def apart(x: torch.Tensor) -> None:
        outputs[: len(x)] = way(x)

    few, many = (
        torch.randn(rows, weight.shape[1]).to(bias.dtype) for rows in (FEW_ROWS, MANY_ROWS)
    )
    # What is compared is timed in turns: a processor's speed may change by a third in a second.
    us = least_us(
        {
            "beside few": partial(beside, few),
            "apart few": partial(apart, few),
            "beside many": partial(beside, many),
            "apart many": partial(apart, many),
            "shared": partial(product.linear, many),
        },
        _REPEATS,
    )
    us_per_row = product.share_among_many * us["shared"] / MANY_ROWS
    return Gains(
        us["beside few"] - us["apart few"] + FEW_ROWS * us_per_row,
        us["beside many"] - us["apart many"] + MANY_ROWS * us_per_row,
    )


def _change(weight: torch.Tensor, density: float, is_dropped: bool) -> SparseWeights:
    """Return a change of evenly spread weights."""
    num_out, num_in = weight.shape
    num_changed = max(1, round(density * weight.numel()))
    flat_indices = torch.linspace(0, weight.numel() - 1, num_changed, dtype=torch.float64)
    values = None if is_dropped else torch.ones(num_changed, dtype=torch.float16)
    return sparse_weights(flat_indices.to(torch.int32), values, (num_out, num_in))
