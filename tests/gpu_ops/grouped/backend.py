"""What a kernel test runs on, and how its result is compared."""

from typing import NamedTuple

import pytest
import torch

from gpu_ops.grouped.kernel_file import Kernels

TOLERANCES = {torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
"""Both sum in float32 and round at the same places, so a result may be one step off."""


class Backend(NamedTuple):
    """The emulator in one order of lanes, or a CUDA device."""

    device: str
    kernels: Kernels | None
    """None: those that an operator takes by itself."""

    def put(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a copy there."""
        return tensor.to(self.device, copy=True)


def emulated_backend(order: int) -> Backend:
    """On the CPU; the test is skipped where nothing can be emulated."""
    from tests.gpu_ops.emulator.emulated_kernels import EmulatedKernels, what_is_missing

    if missing := what_is_missing():
        pytest.skip(missing)
    return Backend("cpu", EmulatedKernels(order))


def cuda_backend() -> Backend:
    """On the device, the way that users take."""
    return Backend("cuda", None)


def assert_same(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Compare what a kernel returned with its reference."""
    tolerance = TOLERANCES[expected.dtype]
    torch.testing.assert_close(found.cpu(), expected, rtol=tolerance, atol=tolerance)


def normal(*size: int, seed: int, dtype: torch.dtype, scale: float = 1.0) -> torch.Tensor:
    """Random values on the CPU."""
    values = torch.randn(*size, generator=torch.Generator().manual_seed(seed))
    return (values * scale).to(dtype)
