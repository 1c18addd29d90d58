"""Measures how the low-rank and adapter products of a task are best computed on this machine."""

from collections.abc import Callable

import torch

from gpu_ops.bottleneck import BottleneckWeights, add_bottleneck_
from gpu_ops.low_rank import LowRankFactors, UpFactor, add_low_rank_
from gpu_ops.spans import Span
from gpu_ops.task_products import PLAIN_PRODUCTS, TaskProducts
from workers.break_even import Gains
from workers.linear_backends import UnpackedLinear
from workers.machine_figures import MachineFigures
from workers.torch_dtypes import dtype_name
from workers.way_timing import gains_us

_RANK = 8
_BOTTLENECK = 64


def low_rank_products(
    weight: torch.Tensor, num_sites: int, linear: UnpackedLinear, figures: MachineFigures
) -> TaskProducts:
    """Return from how many rows on `linear` is faster for low-rank updates of one weight.

    Args:
        weight: Shape (out of all sites together, in).
        num_sites: How many sites lie side by side.
        linear: The fastest product with unpacked weights of that shape.
        figures: Those of this machine.
    """
    (num_out, num_in), dtype = weight.shape, weight.dtype
    width = num_out // num_sites

    def measure() -> Gains:
        factors = LowRankFactors(
            torch.randn(_RANK * num_sites, num_in).to(dtype),
            tuple(
                UpFactor(site * _RANK, site * width, torch.randn(width, _RANK).to(dtype))
                for site in range(num_sites)
            ),
        )

        def run(x: torch.Tensor, products: TaskProducts) -> None:
            y = torch.empty(len(x), num_out, dtype=dtype)
            add_low_rank_(y, x, [Span(0, len(x))], [factors], products)

        return _gains(num_in, dtype, linear, run)

    return _products(f"low-rank {num_out}x{num_in} in {num_sites}", dtype, linear, measure, figures)


def bottleneck_products(
    hidden_size: int, dtype: torch.dtype, linear: UnpackedLinear, figures: MachineFigures
) -> TaskProducts:
    """Return from how many rows on `linear` is faster for adapters.

    Args:
        hidden_size: Width of input and output.
        dtype: Of both.
        linear: The fastest product with unpacked weights of (hidden_size, hidden_size).
        figures: Those of this machine.
    """

    def measure() -> Gains:
        adapter = BottleneckWeights(
            torch.randn(_BOTTLENECK, hidden_size),
            torch.randn(_BOTTLENECK),
            torch.randn(hidden_size, _BOTTLENECK),
            torch.randn(hidden_size),
            "gelu",
        )

        def run(x: torch.Tensor, products: TaskProducts) -> None:
            add_bottleneck_(x, [Span(0, len(x))], [adapter], products)

        return _gains(hidden_size, dtype, linear, run)

    return _products(f"adapter {hidden_size}", dtype, linear, measure, figures)


def _gains(
    num_in: int,
    dtype: torch.dtype,
    linear: UnpackedLinear,
    run: Callable[[torch.Tensor, TaskProducts], None],
) -> Gains:
    always = TaskProducts(linear.op, 0)
    return gains_us(lambda x: run(x, PLAIN_PRODUCTS), lambda x: run(x, always), num_in, dtype)


def _products(
    what: str,
    dtype: torch.dtype,
    linear: UnpackedLinear,
    measure: Callable[[], Gains],
    figures: MachineFigures,
) -> TaskProducts:
    name = f"{what} {dtype_name(dtype)} {linear.name}"
    found = figures.measured(name, lambda: measure()._asdict())
    return TaskProducts(linear.op, Gains.of(found).break_even_rows())
