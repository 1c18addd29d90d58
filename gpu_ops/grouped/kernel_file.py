"""Which kernels there are, and what runs them: CuPy on a device, an emulator in the tests."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

KERNELS = Path(__file__).parent.parent / "kernels"
"""The folder of the sources, and of the headers that they share."""
C_NAMES = {torch.float32: "float", torch.float16: "__half", torch.bfloat16: "__nv_bfloat16"}
"""What kernels compute on; sums are float32 for all of them."""

Argument = int | np.int32 | np.float32
"""A pointer is an int. CuPy passes a plain float as a double, so scalars are NumPy's."""
Extent = tuple[int, int, int]
"""Of a grid or of a block, x first."""


@dataclass(frozen=True, slots=True)
class KernelFile:
    """One file of kernel templates and every instance of them that is used."""

    name: str
    """Without `.cu`."""
    templates: tuple[str, ...]
    """Instances, with `{T}` for the element type: `scale<{T}>`."""

    @property
    def path(self) -> Path:
        """The source."""
        return KERNELS / f"{self.name}.cu"

    def name_of(self, template: str, dtype: torch.dtype) -> str:
        """Return the C++ name of an instance.

        Raises:
            TypeError: If there is no kernel for `dtype`.
            KeyError: If the template is not among `templates`.
        """
        if dtype not in C_NAMES:
            raise TypeError(f"{self.name}: expected one of {list(C_NAMES)}, got {dtype}")
        if template not in self.templates:
            raise KeyError(f"{self.name} has no {template}")
        return template.replace("{T}", C_NAMES[dtype])

    def names(self) -> list[str]:
        """Return the C++ names of all instances."""
        return [self.name_of(t, d) for t in self.templates for d in C_NAMES]


class Kernel(Protocol):
    """An instance that can be launched: the part of `cupy.RawKernel` that is used."""

    max_dynamic_shared_size_bytes: int
    """At first 48 KiB less what the kernel has of static shared memory: more must be asked for."""

    def __call__(
        self, grid: Extent, block: Extent, args: Sequence[Argument], *, shared_mem: int = 0
    ) -> None:
        """Launch on the current stream."""


class Kernels(Protocol):
    """Where instances come from."""

    def get(self, file: KernelFile, name: str) -> Kernel:
        """Return an instance by its C++ name, compiled when first asked for."""
