"""The exact GELU, compiled: `ACTIVATIONS["gelu"]` of `gpu_ops.activations`."""

import torch

from gpu_ops.compiled.library import POINTER, SIZE, Library, check_contiguous


class CompiledGelu:
    """Changes its argument in place and returns it; may be called from several threads."""

    def __init__(self, library: Library) -> None:
        self._gelu = library.by_dtype("gelu", POINTER, SIZE)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Semantics: x * Phi(x), Phi the normal distribution; largest error 2e-7 * max(1, |x|).

        Args:
            x: Any shape, float32 or bfloat16. Changed in place.
        """
        check_contiguous(x)
        self._gelu[x.dtype](x.data_ptr(), x.numel())
        return x
