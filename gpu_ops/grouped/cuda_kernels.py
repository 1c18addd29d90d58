"""Kernels on a CUDA device: compiled by CuPy, run on torch's current stream and memory."""

from collections.abc import Sequence
from functools import cache

import torch

from gpu_ops.grouped.kernel_file import KERNELS, Argument, Extent, Kernel, KernelFile

OPTIONS = ("-std=c++17", f"-I{KERNELS}")


class CudaKernels:
    """Compiles at first use, per process and device; CuPy keeps the binaries on disk.

    A first use inside the capture of a CUDA graph would fail, so run each operator once before.
    """

    def get(self, file: KernelFile, name: str) -> Kernel:
        """Return an instance by its C++ name."""
        return _compile(file, name)


class _OnTorchStream:
    """A compiled instance. The stream is asked for at each launch, or a graph captures nothing."""

    def __init__(self, file: KernelFile, name: str) -> None:
        import cupy

        self._stream = cupy.cuda.Stream
        module = cupy.RawModule(
            code=file.path.read_text(), options=OPTIONS, name_expressions=[name]
        )
        self._kernel = module.get_function(name)

    @property
    def max_dynamic_shared_size_bytes(self) -> int:
        return int(self._kernel.max_dynamic_shared_size_bytes)

    @max_dynamic_shared_size_bytes.setter
    def max_dynamic_shared_size_bytes(self, size_bytes: int) -> None:
        self._kernel.max_dynamic_shared_size_bytes = size_bytes

    def __call__(
        self, grid: Extent, block: Extent, args: Sequence[Argument], *, shared_mem: int = 0
    ) -> None:
        with self._stream.from_external(torch.cuda.current_stream()):
            self._kernel(grid, block, tuple(args), shared_mem=shared_mem)


@cache
def _compile(file: KernelFile, name: str) -> _OnTorchStream:
    return _OnTorchStream(file, name)
