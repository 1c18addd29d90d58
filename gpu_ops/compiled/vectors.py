"""`gpu_ops.bias` and `gpu_ops.scale`, compiled: the rows of all tasks in one call.

Vectors are read as they are held, and a row of bfloat16 is rounded once behind it.
"""

from array import array
from collections.abc import Callable, Mapping, Sequence

import torch

from gpu_ops.compiled.library import POINTER, SIZE, Library, check_contiguous
from gpu_ops.spans import Span

_HELD = {torch.float16: 2, torch.float32: 4}
"""Type -> bytes of an element."""


class CompiledVectors:
    """Called like `add_bias_` and `scale_`; may be called from several threads."""

    def __init__(self, library: Library) -> None:
        arguments = (POINTER, SIZE, SIZE, POINTER)
        self._add = library.by_dtype("add_biases", *arguments)
        self._scale = library.by_dtype("scale_by", *arguments)

    def add_bias_(
        self, y: torch.Tensor, spans: Sequence[Span], biases: Sequence[torch.Tensor]
    ) -> None:
        """Add each task's bias to the rows of that task.

        Args:
            y: Shape (num_tokens, out), float32 or bfloat16. Changed in place.
            spans: Disjoint.
            biases: One per span, shape (out,), float16 or float32.
        """
        _change(self._add, y, spans, biases)

    def scale_(
        self, x: torch.Tensor, spans: Sequence[Span], scales: Sequence[torch.Tensor]
    ) -> None:
        """Multiply the features of each task's rows by that task's scale.

        Args:
            x: Shape (num_tokens, features), float32 or bfloat16. Changed in place.
            spans: Disjoint.
            scales: One per span, shape (features,), float16 or float32.
        """
        _change(self._scale, x, spans, scales)


def _change(
    functions: Mapping[torch.dtype, Callable[..., None]],
    x: torch.Tensor,
    spans: Sequence[Span],
    vectors: Sequence[torch.Tensor],
) -> None:
    if not spans:
        return
    check_contiguous(x, *vectors)
    width = x.shape[1]
    tasks = array("q")
    for (start, end), vector in zip(spans, vectors, strict=True):
        num_bytes = _HELD.get(vector.dtype)
        if num_bytes is None or vector.numel() != width:
            raise ValueError(
                f"expected float16 or float32 vectors of {width}, got {vector.dtype} of "
                f"{vector.numel()}"
            )
        tasks.extend((start, end, vector.data_ptr(), num_bytes))
    functions[x.dtype](x.data_ptr(), width, len(spans), tasks.buffer_info()[0])
