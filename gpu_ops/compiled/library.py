"""Finds and loads the library of compiled operators that this processor can run.

Calls go through ctypes, which releases Python's lock while an operator runs.
"""

import ctypes
import platform
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch

from gpu_ops.compiled.build import BUILT, library_path

POINTER, SIZE, FLOAT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
"""What operators read and write, and how their names end; sums are float32."""

_NEEDED = {
    "x86-64-v4": {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
    "x86-64-v3": {"avx2", "fma", "f16c", "bmi1", "bmi2", "movbe", "abm"},
}
"""Variant -> the processor's flags that it needs besides those of the next."""


class Library:
    """One loaded library."""

    def __init__(self, path: Path) -> None:
        self.name = f"{path.parent.name} {path.stem}"
        """Of its sources, flags and variant."""
        self._library = ctypes.CDLL(str(path))

    def function(self, name: str, *arguments: type, result: type | None = None) -> Any:  # noqa: ANN401 - ctypes has no type for it
        """Return a function with its types declared."""
        found = getattr(self._library, name)
        found.argtypes, found.restype = arguments, result
        return found

    def by_dtype(self, name: str, *arguments: type) -> dict[torch.dtype, Callable[..., None]]:
        """Return an operator's functions for each type of elements."""
        return {
            dtype: self.function(f"{name}_{ending}", *arguments) for dtype, ending in DTYPES.items()
        }


@cache
def load(folder: Path = BUILT) -> Library | None:
    """Return the library of the widest variant that is built and that this processor can run."""
    for variant in runnable_variants():
        path = library_path(variant, folder)
        if path.is_file():
            return Library(path)
    return None


def runnable_variants() -> list[str]:
    """Return the variants that this processor can run, the widest first."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return ["generic"]
    flags = _processor_flags()
    has_v3 = _NEEDED["x86-64-v3"] <= flags
    return [name for name, needed in _NEEDED.items() if has_v3 and needed <= flags]


def _processor_flags() -> set[str]:
    """Return what Linux says that the processor has; nothing elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return next((set(line.split()) for line in lines if line.startswith("flags")), set())


def check_contiguous(*tensors: torch.Tensor) -> None:
    """Refuse tensors that an operator would read wrongly.

    Raises:
        ValueError: If one is not on the CPU or not laid out row by row.
    """
    for tensor in tensors:
        if not tensor.is_contiguous() or not tensor.is_cpu:
            raise ValueError(
                f"compiled operators take contiguous tensors of the CPU, got shape "
                f"{tuple(tensor.shape)}, strides {tensor.stride()} on {tensor.device}"
            )


def check_float32(*tensors: torch.Tensor) -> None:
    """Refuse what an operator that knows float32 alone would read wrongly.

    Raises:
        ValueError: If one is of another type, not on the CPU or not laid out row by row.
    """
    check_contiguous(*tensors)
    if any(tensor.dtype != torch.float32 for tensor in tensors):
        raise ValueError(f"expected tensors of float32, got {[t.dtype for t in tensors]}")
