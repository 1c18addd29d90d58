"""From a torch call to a kernel launch: which kernels, checked tensors, raw pointers."""

from collections.abc import Sequence

import numpy as np
import torch

from gpu_ops.grouped.cuda_kernels import CudaKernels
from gpu_ops.grouped.kernel_file import Argument, Extent, KernelFile, Kernels

PACK_BYTES = 16
"""What a thread reads at once: rows of tensors are multiples of it, and begin at one."""

_CUDA = CudaKernels()


def kernels_for(tensor: torch.Tensor, kernels: Kernels | None) -> Kernels | None:
    """Return the kernels to use: the given ones, CUDA's for a CUDA tensor, else none."""
    if kernels is None and tensor.is_cuda:
        return _CUDA
    return kernels


def launch(
    kernels: Kernels,
    file: KernelFile,
    template: str,
    dtype: torch.dtype,
    grid: Extent,
    threads: int,
    arguments: Sequence[torch.Tensor | np.int32 | np.float32 | None],
    shared_bytes: int = 0,
) -> None:
    """Launch an instance; a grid with no blocks is no launch.

    Args:
        kernels: Where it comes from.
        file: Its source.
        template: Which instance, but for the element type.
        dtype: The element type.
        grid: Blocks.
        threads: Of a block.
        arguments: As in the kernel's signature; a tensor stands for its address, None for a null
            pointer.
        shared_bytes: Dynamic shared memory of a block; it is asked for where it is more than a
            block gets by itself.

    Raises:
        TypeError: If there is no kernel for `dtype`.
        ValueError: If a tensor is not contiguous or they lie on several devices.
    """
    name = file.name_of(template, dtype)
    tensors = [argument for argument in arguments if isinstance(argument, torch.Tensor)]
    for tensor in tensors:
        if not tensor.is_contiguous():
            raise ValueError(f"{name}: expected contiguous tensors, got strides {tensor.stride()}")
        if tensor.device != tensors[0].device:
            raise ValueError(f"{name}: tensors on {tensor.device} and {tensors[0].device}")
    if 0 in grid:
        return
    kernel = kernels.get(file, name)
    if shared_bytes > kernel.max_dynamic_shared_size_bytes:
        kernel.max_dynamic_shared_size_bytes = shared_bytes
    kernel(grid, (threads, 1, 1), [_address(a) for a in arguments], shared_mem=shared_bytes)


def _address(argument: torch.Tensor | np.int32 | np.float32 | None) -> Argument:
    if argument is None:
        return 0
    return argument.data_ptr() if isinstance(argument, torch.Tensor) else argument


def require(tensor: torch.Tensor, shape: Sequence[int | None], dtype: torch.dtype) -> None:
    """Check a tensor that a kernel will read without looking.

    Args:
        tensor: Of an operator's caller.
        shape: What it must be; None for any extent.
        dtype: What it must be.

    Raises:
        TypeError: If the dtype differs.
        ValueError: If the shape differs.
    """
    if tensor.dtype != dtype:
        raise TypeError(f"expected {dtype}, got {tensor.dtype}")
    if len(shape) != tensor.dim() or any(
        want is not None and want != have for want, have in zip(shape, tensor.shape, strict=True)
    ):
        raise ValueError(f"expected shape {tuple(shape)}, got {tuple(tensor.shape)}")


def require_packs(*tensors: torch.Tensor) -> None:
    """Check that a kernel can read the rows of the tensors 16 bytes at a time.

    Raises:
        ValueError: If a row is no multiple of 16 bytes, or does not begin at one.
    """
    for tensor in tensors:
        row_bytes = tensor.shape[-1] * tensor.element_size()
        if row_bytes % PACK_BYTES or tensor.data_ptr() % PACK_BYTES:
            raise ValueError(
                f"expected rows of a multiple of {PACK_BYTES} bytes, aligned to it, got "
                f"{row_bytes} bytes at {tensor.data_ptr():#x}"
            )


def div_ceil(numerator: int, denominator: int) -> int:
    """Return the quotient, rounded up."""
    return -(-numerator // denominator)
