"""`gpu_ops.layer_norm.add_layer_norm`, compiled: one pass over the rows, whatever their tasks."""

from array import array
from collections.abc import Sequence
from itertools import chain

import torch

from gpu_ops.compiled.library import FLOAT, POINTER, SIZE, Library, check_contiguous
from gpu_ops.layer_norm import NormWeights
from gpu_ops.spans import Span


class CompiledAddLayerNorm:
    """Called like `add_layer_norm`; may be called from several threads."""

    def __init__(self, library: Library) -> None:
        self._add_layer_norm = library.by_dtype(
            "add_layer_norm",
            *(POINTER, POINTER, SIZE, SIZE),
            *(POINTER, POINTER, FLOAT),
            *(SIZE, POINTER, POINTER, POINTER),
        )

    def __call__(
        self,
        x: torch.Tensor,
        residual: torch.Tensor,
        shared: NormWeights,
        eps: float,
        spans: Sequence[Span],
        own: Sequence[NormWeights],
    ) -> torch.Tensor:
        """Return the LayerNorm of x + residual, with own parameters in the given spans.

        Args:
            x: Shape (num_tokens, hidden), float32 or bfloat16. Overwritten: it is the result.
            residual: Shape (num_tokens, hidden), of the same type.
            shared: Parameters of the rows outside all spans.
            eps: Added to the variance.
            spans: Disjoint and ascending: rows of tasks with parameters of their own.
            own: One per span.
        """
        check_contiguous(x, residual)
        if residual.shape != x.shape or residual.dtype != x.dtype:
            raise ValueError(f"expected a residual of shape {tuple(x.shape)} and {x.dtype}")
        weights = [_as_read(part) for norm in (shared, *own) for part in norm]
        gamma, beta, *others = (weight.data_ptr() for weight in weights)
        num_rows, width = x.shape
        scratch = torch.empty(width + 16)
        ends, addresses = array("q", chain.from_iterable(spans)), array("q", others)
        self._add_layer_norm[x.dtype](
            *(x.data_ptr(), residual.data_ptr(), num_rows, width),
            *(gamma, beta, eps, len(spans)),
            *(ends.buffer_info()[0], addresses.buffer_info()[0]),
            scratch.data_ptr(),
        )
        return x


def _as_read(weight: torch.Tensor) -> torch.Tensor:
    """Return it as float32 laid out end to end: most are, and to find that out takes less."""
    is_read = weight.dtype == torch.float32 and weight.is_contiguous()
    return weight if is_read else weight.float().contiguous()
