"""How the small products of one task's rows are computed."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.nn import functional as F

LinearOp = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]
"""Takes x (rows, in), weight (out, in) and a bias (out,) or None; returns x weight^T + bias."""


class TaskProducts(NamedTuple):
    """Two ways to the same products: torch's own for few rows, another library for many.

    A call into oneDNN costs some microseconds more than one into MKL, and on some processors
    multiplies twice as fast, so where one overtakes the other is measured by the caller.
    """

    many_rows: LinearOp
    """From `min_rows` rows on."""
    min_rows: int


PLAIN_PRODUCTS = TaskProducts(F.linear, 1 << 30)
"""Torch's own for any number of rows."""
