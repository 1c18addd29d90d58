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
    """Each in turn. REQUIRE_GPU=1 makes a missing device a failure, not a skip."""
    if request.param != "cuda":
        return emulated_backend(request.param)
    if not torch.cuda.is_available():
        reason = "no CUDA device"
        (pytest.fail if os.environ.get("REQUIRE_GPU") == "1" else pytest.skip)(reason)
    return cuda_backend()


@pytest.fixture(params=[torch.float32, torch.float16, torch.bfloat16], ids=["f32", "f16", "bf16"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    """Each element type that kernels have."""
    found: torch.dtype = request.param
    return found
