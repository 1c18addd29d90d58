"""Which library multiplies by the shared weights: measured here, for each shape and type.

For the same float32 product oneDNN is twice as fast as MKL on some of AMD's processors and no
faster on Intel's; the compiled product (`gpu_ops.compiled.product`) gains most with few rows. So
nothing is assumed. What is measured is one thread's CPU time, which other
work on the machine hardly changes; it takes a fraction of a second, once per machine
(`MachineFigures`).
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch.nn import functional as F

from gpu_ops.compiled.library import Library
from gpu_ops.compiled.product import CompiledProduct
from gpu_ops.task_products import LinearOp
from workers.machine_figures import LINEAR, MachineFigures
from workers.torch_dtypes import dtype_name
from workers.way_timing import least_us

BackendName = Literal["compiled-packed", "compiled", "onednn-packed", "onednn", "torch"]
Linear = Callable[[torch.Tensor], torch.Tensor]
"""Takes x of shape (rows, in), returns x W^T + b of shape (rows, out)."""

logger = logging.getLogger(__name__)

_MEASURED_ROWS = (32, 256)
_REPEATS = 5
_TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 3e-2}
"""Absolute, and relative to each element."""
_PACKED_FOR_ROWS = 256


@dataclass(frozen=True, slots=True)
class LinearChoice:
    """The back ends that one shape is run with."""

    shared: BackendName
    """For the shared weight, which is packed once."""
    unpacked: BackendName
    """For a weight that is used once: a task's own."""
    us_per_row: Mapping[BackendName, float]
    """CPU time of one thread by back end, microseconds, mean over the row counts measured."""
    compiled: CompiledProduct | None
    """That of the compiled back ends; None where there is none."""

    @property
    def names(self) -> str:
        """Both back ends, for the names of figures that depend on them."""
        names = f"{self.shared} and {self.unpacked}"
        if self.compiled is None or "compiled" not in names:
            return names
        return f"{names} of {self.compiled.library}"

    @property
    def unpacked_linear(self) -> "UnpackedLinear":
        """The product with weights that are used once."""
        name: str = self.unpacked
        if self.compiled is not None and name == "compiled":
            name += f" {self.compiled.library}"
        return UnpackedLinear(name, _op(self.unpacked, self.compiled))

    def shared_linear(self, weight: torch.Tensor, bias: torch.Tensor) -> Linear:
        """Return the product with a weight that stays."""
        return _linear(self.shared, self.compiled, weight, bias)


class UnpackedLinear(NamedTuple):
    """A back end that takes weights as they are."""

    name: str
    """The back end's, with the library's where it is compiled: figures are that one's."""
    op: LinearOp


def choose(
    weight: torch.Tensor, bias: torch.Tensor, figures: MachineFigures, library: Library | None
) -> LinearChoice:
    """Return the fastest back ends for one shape, measured if they were not yet.

    Args:
        weight: Shape (out, in), float32 or bfloat16.
        bias: Shape (out,), likewise.
        figures: Those of this machine.
        library: The compiled operators; they multiply float32 alone.
    """
    compiled = None
    if library is not None and weight.dtype == torch.float32:
        compiled = CompiledProduct(library)
    candidates = right_back_ends(weight, bias, compiled)
    num_out, num_in = weight.shape
    name = f"{LINEAR} {num_out}x{num_in} {dtype_name(weight.dtype)}"
    if compiled is not None:
        name += f" {compiled.library}"
    measured = figures.measured(
        name, lambda: {str(key): us for key, us in _us_per_row(candidates, weight).items()}
    )
    us_per_row = {backend: measured[backend] for backend in candidates if backend in measured}
    ranked = sorted(us_per_row, key=lambda backend: us_per_row[backend])
    choice = LinearChoice(
        shared=ranked[0],
        unpacked=next(backend for backend in ranked if not backend.endswith("-packed")),
        us_per_row=us_per_row,
        compiled=compiled,
    )
    logger.debug("%s: %s", name, choice)
    return choice


def right_back_ends(
    weight: torch.Tensor, bias: torch.Tensor, compiled: CompiledProduct | None
) -> dict[BackendName, Linear]:
    """Return the back ends that compute the product here."""
    names: list[BackendName] = ["torch"]
    if _has_onednn(weight.dtype):
        names += ["onednn", "onednn-packed"]
    if compiled is not None:
        names += ["compiled", "compiled-packed"]
    x = _input(_MEASURED_ROWS[0], weight)
    expected = F.linear(x, weight, bias)
    tolerance = _TOLERANCES[weight.dtype]
    candidates = {name: _linear(name, compiled, weight, bias) for name in names}
    return {
        name: linear
        for name, linear in candidates.items()
        # The oneDNN op is torch's own but private, and another compiler has compiled what tests
        # saw: one that computes something else is not used.
        if torch.allclose(linear(x), expected, rtol=tolerance, atol=tolerance)
    }


def _linear(
    backend: BackendName,
    compiled: CompiledProduct | None,
    weight: torch.Tensor,
    bias: torch.Tensor,
) -> Linear:
    """Return a back end's product with a weight that stays."""
    if backend == "onednn-packed":
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, _PACKED_FOR_ROWS)
        return partial(_onednn_product, packed, bias)
    if backend == "compiled-packed":
        assert compiled is not None
        return compiled.packed(weight, bias)
    return partial(_swapped, _op(backend, compiled), weight, bias)


def _op(backend: BackendName, compiled: CompiledProduct | None) -> LinearOp:
    """Return a back end's product with weights as they are."""
    if backend == "compiled":
        assert compiled is not None
        return compiled
    return _onednn if backend == "onednn" else F.linear


def _has_onednn(dtype: torch.dtype) -> bool:
    if not (
        torch._C._has_mkldnn
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    ):
        return False
    return dtype == torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


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


def _input(num_rows: int, weight: torch.Tensor) -> torch.Tensor:
    return torch.randn(num_rows, weight.shape[1]).to(weight.dtype)


def _us_per_row(
    candidates: Mapping[BackendName, Linear], weight: torch.Tensor
) -> dict[BackendName, float]:
    """Return the mean of the times at the row counts measured."""
    totals_us = dict.fromkeys(candidates, 0.0)
    for num_rows in _MEASURED_ROWS:
        x = _input(num_rows, weight)
        runs = {name: partial(linear, x) for name, linear in candidates.items()}
        for name, us in least_us(runs, _REPEATS).items():
            totals_us[name] += us / num_rows
    return {name: total_us / len(_MEASURED_ROWS) for name, total_us in totals_us.items()}
