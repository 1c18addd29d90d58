"""Measures how the low-rank and adapter products of a task are best computed on this machine."""

from collections.abc import Callable

import torch

from gpu_ops.bottleneck import BottleneckWeights, add_bottleneck_
from gpu_ops.low_rank import LowRankFactors, UpFactor, add_low_rank_
from gpu_ops.spans import Span
from gpu_ops.task_products import PLAIN_PRODUCTS, LinearOp, TaskProducts
from workers.break_even import break_even_rows

_RANK = 8
_BOTTLENECK = 64


def low_rank_products(num_in: int, num_out: int, num_sites: int, linear: LinearOp) -> TaskProducts:
    """Return from how many rows on `linear` is faster for low-rank updates of one shape.

    Args:
        num_in: Width of the input.
        num_out: Width of the output of all sites together.
        num_sites: How many sites lie side by side.
        linear: The fastest product with unpacked weights of that shape.
    """
    width = num_out // num_sites
    factors = LowRankFactors(
        torch.randn(_RANK * num_sites, num_in),
        tuple(
            UpFactor(site * _RANK, site * width, torch.randn(width, _RANK))
            for site in range(num_sites)
        ),
    )

    def run(x: torch.Tensor, products: TaskProducts) -> None:
        add_low_rank_(torch.empty(len(x), num_out), x, [Span(0, len(x))], [factors], products)

    return _measured(num_in, linear, run)


def bottleneck_products(hidden_size: int, linear: LinearOp) -> TaskProducts:
    """Return from how many rows on `linear` is faster for adapters."""
    adapter = BottleneckWeights(
        torch.randn(_BOTTLENECK, hidden_size),
        torch.randn(_BOTTLENECK),
        torch.randn(hidden_size, _BOTTLENECK),
        torch.randn(hidden_size),
        "gelu",
    )

    def run(x: torch.Tensor, products: TaskProducts) -> None:
        add_bottleneck_(x, [Span(0, len(x))], [adapter], products)

    return _measured(hidden_size, linear, run)


def _measured(
    num_in: int, linear: LinearOp, run: Callable[[torch.Tensor, TaskProducts], None]
) -> TaskProducts:
    always = TaskProducts(linear, 0)
    rows = break_even_rows(lambda x: run(x, PLAIN_PRODUCTS), lambda x: run(x, always), num_in)
    return TaskProducts(linear, rows)
