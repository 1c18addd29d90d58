"""`gpu_ops.bottleneck`, compiled: both products of a task's adapter in one call."""

from collections.abc import Sequence

import torch

from gpu_ops.activations import Activation
from gpu_ops.bottleneck import BottleneckWeights
from gpu_ops.compiled.library import POINTER, SIZE, Library, check_contiguous
from gpu_ops.spans import Span

_ACTIVATIONS: dict[Activation, int] = {"relu": 0, "gelu": 1}


class CompiledBottleneck:
    """Called like `add_bottleneck_`; may be called from several threads."""

    def __init__(self, library: Library) -> None:
        self._scratch = library.function("bottleneck_scratch", SIZE, SIZE, result=SIZE)
        self._add = library.by_dtype(
            "add_bottleneck",
            *(POINTER, SIZE, SIZE, SIZE),
            *(POINTER, SIZE, POINTER, POINTER, SIZE, POINTER),
            *(SIZE, POINTER),
        )

    def takes(self, adapter: BottleneckWeights) -> bool:
        """Return whether it computes this one: by its activation."""
        return adapter.activation in _ACTIVATIONS

    def __call__(
        self, h: torch.Tensor, spans: Sequence[Span], adapters: Sequence[BottleneckWeights]
    ) -> None:
        """Run each task's adapter on the rows of that task.

        Args:
            h: Shape (num_tokens, hidden), float32 or bfloat16. Changed in place.
            spans: Disjoint.
            adapters: One per span, weights float16 or float32, biases float32, such as `takes`
                says.
        """
        if not spans:
            return
        check_contiguous(h)
        hidden, add = h.shape[1], self._add[h.dtype]
        for (start, end), adapter in zip(spans, adapters, strict=True):
            down, up = adapter.down_weight, adapter.up_weight
            check_contiguous(down, adapter.down_bias, up, adapter.up_bias)
            scratch = torch.empty(self._scratch(hidden, len(down)))
            add(
                *(h.data_ptr() + start * hidden * h.itemsize, end - start, hidden, len(down)),
                *(down.data_ptr(), down.itemsize, adapter.down_bias.data_ptr()),
                *(up.data_ptr(), up.itemsize, adapter.up_bias.data_ptr()),
                *(_ACTIVATIONS[adapter.activation], scratch.data_ptr()),
            )
