"""Which library multiplies by the shared weights: measured on this machine, for each shape.

For the same float32 product oneDNN is twice as fast as MKL on AMD's processors and no faster on
Intel's, so nothing is assumed. What is measured is one thread's CPU time, which other work on
the machine hardly changes; it takes a fraction of a second, so it is done at every start.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch.nn import functional as F

from gpu_ops.task_products import LinearOp

BackendName = Literal["onednn-packed", "onednn", "torch"]
Linear = Callable[[torch.Tensor], torch.Tensor]
"""Takes x of shape (rows, in), returns x W^T + b of shape (rows, out)."""

logger = logging.getLogger(__name__)

_MEASURED_ROWS = (32, 256)
_REPEATS = 3
_TOLERANCE = 1e-4
_PACKED_FOR_ROWS = 256


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one back end takes for one shape."""

    backend: BackendName
    us_per_row: float
    """CPU time of one thread, microseconds, mean over the row counts measured."""


@dataclass(frozen=True, slots=True)
class LinearChoice:
    """The back ends that one shape is run with."""

    shared: BackendName
    """For the shared weight, which is packed once."""
    unpacked: BackendName
    """For a weight that is used once: a task's own."""
    measurements: tuple[Measurement, ...]

    def shared_linear(self, weight: torch.Tensor, bias: torch.Tensor) -> Linear:
        """Return the product with a weight that stays."""
        if self.shared == "onednn-packed":
            packed = torch.ops.mkldnn._reorder_linear_weight(weight, _PACKED_FOR_ROWS)
            return partial(_onednn_product, packed, bias)
        return partial(_swapped, unpacked_op(self.shared), weight, bias)


def unpacked_op(backend: BackendName) -> LinearOp:
    """Return the product with weights that are not packed."""
    return _onednn if backend == "onednn" else F.linear


def choose(weight: torch.Tensor, bias: torch.Tensor) -> LinearChoice:
    """Measure the back ends for one shape and return the fastest ones.

    Args:
        weight: Shape (out, in), float32.
        bias: Shape (out,).
    """
    inputs = [torch.randn(rows, weight.shape[1]) for rows in _MEASURED_ROWS]
    candidates: dict[BackendName, Linear] = {"torch": partial(_swapped, F.linear, weight, bias)}
    if _has_onednn():
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, _PACKED_FOR_ROWS)
        candidates["onednn"] = partial(_swapped, _onednn, weight, bias)
        candidates["onednn-packed"] = partial(_onednn_product, packed, bias)
    expected = F.linear(inputs[0], weight, bias)
    measurements = tuple(
        Measurement(name, _us_per_row(linear, inputs))
        for name, linear in candidates.items()
        # The oneDNN op is torch's own but private: one that changed its meaning is not used.
        if torch.allclose(linear(inputs[0]), expected, rtol=_TOLERANCE, atol=_TOLERANCE)
    )
    ranked = sorted(measurements, key=lambda m: m.us_per_row)
    choice = LinearChoice(
        shared=ranked[0].backend,
        unpacked=next(m.backend for m in ranked if m.backend != "onednn-packed"),
        measurements=measurements,
    )
    logger.debug("linear %s: %s", tuple(weight.shape), choice)
    return choice


def _has_onednn() -> bool:
    return (
        torch._C._has_mkldnn
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    )


def _onednn(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return _onednn_product(weight, bias, x)


def _onednn_product(
    weight: torch.Tensor, bias: torch.Tensor | None, x: torch.Tensor
) -> torch.Tensor:
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product


def _swapped(
    op: LinearOp, weight: torch.Tensor, bias: torch.Tensor, x: torch.Tensor
) -> torch.Tensor:
    return op(x, weight, bias)


def _us_per_row(linear: Linear, inputs: Sequence[torch.Tensor]) -> float:
    total_us = 0.0
    for x in inputs:
        linear(x)  # the first call builds the kernel
        best_s = min(_thread_seconds(linear, x) for _ in range(_REPEATS))
        total_us += 1e6 * best_s / len(x)
    return total_us / len(inputs)


def _thread_seconds(linear: Linear, x: torch.Tensor) -> float:
    started_s = time.thread_time()
    linear(x)
    return time.thread_time() - started_s
