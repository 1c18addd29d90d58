"""Every kernel test runs emulated, in three orders of lanes, and on a device if there is one."""

import os

import pytest
import torch

from tests.gpu_ops.grouped.backend import Backend, cuda_backend, emulated_backend

ORDERS = (0, 1, 7)


@pytest.fixture(
    params=[
        *(pytest.param(order, id=f"order{order}") for order in ORDERS),
        pytest.param("cuda", marks=pytest.mark.gpu),
    ]
)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each in turn."""
    return _cuda() if request.param == "cuda" else emulated_backend(request.param)


@pytest.fixture
def device() -> Backend:
    """The device alone, for what an emulator cannot show: streams and graphs."""
    return _cuda()


def _cuda() -> Backend:
    """Skip without a device. REQUIRE_GPU=1 makes a missing device a failure instead."""
    if not torch.cuda.is_available():
        reason = "no CUDA device"
        (pytest.fail if os.environ.get("REQUIRE_GPU") == "1" else pytest.skip)(reason)
    return cuda_backend()


@pytest.fixture(params=[torch.float32, torch.float16, torch.bfloat16], ids=["f32", "f16", "bf16"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    """Each element type that kernels have."""
    found: torch.dtype = request.param
    return found
