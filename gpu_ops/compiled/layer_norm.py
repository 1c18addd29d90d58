"""`gpu_ops.layer_norm.add_layer_norm`, compiled: one pass over the rows, whatever their tasks."""

import ctypes
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
        weights = [part.float().contiguous() for norm in (shared, *own) for part in norm]
        gamma, beta, *others = (weight.data_ptr() for weight in weights)
        num_rows, width = x.shape
        scratch = torch.empty(width + 16)
        ends = (ctypes.c_int64 * len(others))(*chain.from_iterable(spans)) if spans else None
        self._add_layer_norm[x.dtype](
            *(x.data_ptr(), residual.data_ptr(), num_rows, width),
            *(gamma, beta, eps, len(spans)),
            *(ends, (ctypes.c_void_p * len(others))(*others) if spans else None),
            scratch.data_ptr(),
        )
        return x
