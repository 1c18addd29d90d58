"""The product of all tasks' rows with the shared weight, compiled: x W^T + b in float32."""

from collections.abc import Callable
from functools import partial

import torch

from gpu_ops.compiled.library import POINTER, SIZE, Library, check_contiguous


class CompiledProduct:
    """Called like `torch.nn.functional.linear`; may be called from several threads.

    As fast for any number of rows, with nothing to build for one that was not seen before.
    """

    def __init__(self, library: Library) -> None:
        sizes = (SIZE, SIZE)
        self._panels = library.function("product_panels", *sizes, result=SIZE)
        self._pack = library.function("product_pack", POINTER, *sizes, POINTER)
        self._packed_scratch = library.function("product_packed_scratch", *sizes, result=SIZE)
        self._scratch = library.function("product_scratch", *sizes, result=SIZE)
        arguments = (POINTER, SIZE, SIZE, POINTER, POINTER, SIZE, POINTER, POINTER)
        self._multiply_packed = library.function("product_packed", *arguments)
        self._multiply = library.function("product", *arguments)

    def packed(
        self, weight: torch.Tensor, bias: torch.Tensor
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return the product with a weight that stays: it is laid out once.

        Args:
            weight: Shape (out, in), float32.
            bias: Shape (out,), likewise.
        """
        check_contiguous(weight, bias)
        panels = torch.empty(self._panels(*weight.shape))
        self._pack(weight.data_ptr(), *weight.shape, panels.data_ptr())
        return partial(self._run_packed, panels, bias)

    def __call__(
        self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return x W^T + b, shape (rows, out).

        Args:
            x: Shape (rows, in), float32.
            weight: Shape (out, in), likewise.
            bias: Shape (out,), likewise; None: none.
        """
        x, weight = x.contiguous(), weight.contiguous()
        bias = torch.zeros(len(weight)) if bias is None else bias.contiguous()
        (rows, num_in), y = x.shape, x.new_empty(len(x), len(weight))
        scratch = torch.empty(self._scratch(rows, num_in))
        self._multiply(
            *(x.data_ptr(), rows, num_in, weight.data_ptr(), bias.data_ptr()),
            *(len(weight), y.data_ptr(), scratch.data_ptr()),
        )
        return y

    def _run_packed(
        self, panels: torch.Tensor, bias: torch.Tensor, x: torch.Tensor
    ) -> torch.Tensor:
        x = x.contiguous()
        (rows, num_in), y = x.shape, x.new_empty(len(x), len(bias))
        scratch = torch.empty(self._packed_scratch(rows, num_in))
        self._multiply_packed(
            *(x.data_ptr(), rows, num_in, panels.data_ptr(), bias.data_ptr()),
            *(len(bias), y.data_ptr(), scratch.data_ptr()),
        )
        return y
