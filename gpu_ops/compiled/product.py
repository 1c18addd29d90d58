"""The product of all tasks' rows with the shared weight, compiled: x W^T + b in float32."""

from collections.abc import Sequence

import torch

from gpu_ops.compiled.library import POINTER, SIZE, Library, check_float32
from gpu_ops.compiled.sparse_change import ChangeArguments
from gpu_ops.spans import Span
from gpu_ops.sparse_delta import SparseWeights

_OPERANDS = (POINTER, SIZE, SIZE, POINTER, POINTER, SIZE)
"""x, its rows and inputs; the weight; the bias; outputs."""


class CompiledProduct:
    """Called like `torch.nn.functional.linear`; may be called from several threads.

    As fast for any number of rows, with nothing to build for one that was not seen before.
    """

    def __init__(self, library: Library) -> None:
        self.library = library.name
        self._panels = library.function("product_panels", SIZE, SIZE, result=SIZE)
        self._pack = library.function("product_pack", POINTER, SIZE, SIZE, POINTER)
        self._scratch = library.function("product_scratch", SIZE, SIZE, result=SIZE)
        self._multiply = library.function("product", *_OPERANDS, POINTER, POINTER)
        self.packed_scratch = library.function("product_packed_scratch", SIZE, SIZE, result=SIZE)
        self.multiply_packed = library.function(
            "product_packed", *_OPERANDS, SIZE, POINTER, POINTER, POINTER
        )
        self.change_arguments = ChangeArguments()

    def packed(self, weight: torch.Tensor, bias: torch.Tensor) -> "PackedProduct":
        """Return the product with a weight that stays: it is laid out once.

        Args:
            weight: Shape (out, in), float32.
            bias: Shape (out,), likewise.
        """
        check_float32(weight, bias)
        panels = torch.empty(self._panels(*weight.shape))
        self._pack(weight.data_ptr(), *weight.shape, panels.data_ptr())
        return PackedProduct(self, panels, bias)

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
        check_float32(x, weight, bias)
        (rows, num_in), y = x.shape, x.new_empty(len(x), len(weight))
        scratch = torch.empty(self._scratch(rows, num_in))
        self._multiply(
            *(x.data_ptr(), rows, num_in, weight.data_ptr(), bias.data_ptr(), len(weight)),
            *(y.data_ptr(), scratch.data_ptr()),
        )
        return y


class PackedProduct:
    """The product with one weight; may be called from several threads."""

    def __init__(self, product: CompiledProduct, panels: torch.Tensor, bias: torch.Tensor) -> None:
        self._product = product
        self._panels = panels
        self._bias = bias

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return x W^T + b, shape (rows, out).

        Args:
            x: Shape (rows, in), float32.
        """
        return self.with_changes(x, (), ())

    def with_changes(
        self, x: torch.Tensor, spans: Sequence[Span], deltas: Sequence[SparseWeights]
    ) -> torch.Tensor:
        """Return x W^T + b with each task's change of W in its rows, shape (rows, out).

        A change is written into a copy of a panel of W, which multiplies the task's rows, and
        taken back: no copy of the weight is made, and W is read once for all tasks.

        Args:
            x: Shape (rows, in), float32.
            spans: Disjoint, ascending.
            deltas: One per span, changes of the weight.
        """
        x = x.contiguous()
        check_float32(x)
        (rows, num_in), num_out = x.shape, len(self._bias)
        tasks = self._product.change_arguments.of_rows(spans, deltas)
        y = x.new_empty(rows, num_out)
        scratch = torch.empty(self._product.packed_scratch(num_in, num_out))
        self._product.multiply_packed(
            *(x.data_ptr(), rows, num_in, self._panels.data_ptr(), self._bias.data_ptr(), num_out),
            *(len(spans), tasks.buffer_info()[0], y.data_ptr(), scratch.data_ptr()),
        )
        return y
