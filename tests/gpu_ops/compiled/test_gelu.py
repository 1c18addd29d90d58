"""Compiled GELU against torch's in float64."""

import pytest
import torch
from torch.nn import functional as F

from gpu_ops.compiled.gelu import CompiledGelu
from gpu_ops.compiled.library import Library


def test_error_is_below_two_ten_millionths(library: Library) -> None:
    """Over all magnitudes and both signs; of what is above 1 in proportion."""
    sizes = torch.cat([torch.linspace(0, 14, 200_001), torch.logspace(-45, 38, 10_007)])
    x = torch.cat([sizes, -sizes])
    expected = F.gelu(x.double())

    found = CompiledGelu(library)(x.clone())

    error = (found.double() - expected).abs() / x.double().abs().clamp(min=1)
    assert error.max() <= 2e-7


@pytest.mark.parametrize("shape", [(1,), (3, 5), (7, 16), (33, 1537)])
def test_any_number_of_elements(
    library: Library, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    """In place, with vectors that are not full."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    expected = F.gelu(x.double())

    found = CompiledGelu(library)(x)

    assert found is x
    tolerance = 2.0**-8 if dtype == torch.bfloat16 else 1e-6
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=1e-6)


def test_values_that_are_no_numbers(library: Library, dtype: torch.dtype) -> None:
    """NaN and infinity stay; far below zero all is gone."""
    x = torch.tensor([torch.nan, torch.inf, -3e38, 0.0, -0.0], dtype=dtype)

    found = CompiledGelu(library)(x)

    assert found[0].isnan()
    assert found[1].isposinf()
    assert found[2:].abs().max() < 1e-30


def test_a_view_is_refused(library: Library) -> None:
    """Elements between its own would be changed too."""
    with pytest.raises(ValueError, match="contiguous"):
        CompiledGelu(library)(torch.zeros(4, 6)[:, :3])
