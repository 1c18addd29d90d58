"""Every operator's test runs on each variant that this processor can run, and on wide vectors."""

import os

import pytest
import torch

from gpu_ops.compiled.build import compiler
from gpu_ops.compiled.library import Library
from tests.gpu_ops.compiled.libraries import FORMS, built


@pytest.fixture(scope="session", params=FORMS)
def library(request: pytest.FixtureRequest) -> Library:
    """Each in turn, compiled under the sanitizers where the environment says so."""
    if compiler() is None:
        pytest.skip("no C++ compiler")
    return built(request.param, os.environ.get("PETSTREAM_SANITIZED_OPERATORS") == "1")


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["f32", "bf16"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    """Each type of elements."""
    found: torch.dtype = request.param
    return found


def normal(*size: int, seed: int = 0) -> torch.Tensor:
    """Random values."""
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def assert_close(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 2e-5) -> None:
    """Compare with a float64 result, which is rounded where the operator's result is bfloat16."""
    assert found.shape == expected.shape
    relative = max(tolerance, 2.0**-8 if found.dtype == torch.bfloat16 else 0.0)
    torch.testing.assert_close(
        found.double(), expected, rtol=relative, atol=tolerance, equal_nan=True
    )
