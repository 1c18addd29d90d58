"""Compiled residual and LayerNorm against torch's operator in float64."""

import pytest
import torch

from gpu_ops.compiled.layer_norm import CompiledAddLayerNorm
from gpu_ops.compiled.library import Library
from gpu_ops.layer_norm import NormWeights, add_layer_norm
from gpu_ops.spans import Span
from tests.gpu_ops.compiled.conftest import assert_close, normal

LAYOUTS = {
    "none": (5, []),
    "single rows": (4, [Span(0, 1), Span(1, 2), Span(3, 4)]),
    "gaps": (70, [Span(2, 9), Span(31, 64)]),
    "whole": (33, [Span(0, 31), Span(31, 33)]),
}


def norm(width: int, seed: int) -> NormWeights:
    """Random gamma and beta."""
    return NormWeights(normal(width, seed=seed), normal(width, seed=seed + 100))


def widened(weights: NormWeights) -> NormWeights:
    """Return gamma and beta in float64."""
    return NormWeights(weights.weight.double(), weights.bias.double())


@pytest.mark.parametrize("width", [1, 7, 100, 384])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_have_the_parameters_of_their_task(
    library: Library, dtype: torch.dtype, width: int, layout: str
) -> None:
    """The result takes the place of x; the residual stays."""
    rows, spans = LAYOUTS[layout]
    x, residual = normal(rows, width).to(dtype), normal(rows, width, seed=1).to(dtype)
    kept = residual.clone()
    shared, own = norm(width, 2), [norm(width, 10 + i) for i in range(len(spans))]
    expected = add_layer_norm(
        x.double(), residual.double(), widened(shared), 1e-3, spans, [widened(n) for n in own]
    )

    found = CompiledAddLayerNorm(library)(x, residual, shared, 1e-3, spans, own)

    assert found.data_ptr() == x.data_ptr()
    assert residual.equal(kept)
    assert_close(found, expected)


def test_a_large_mean_costs_no_digits_of_the_variance(library: Library) -> None:
    """The squares are of deviations, not of values."""
    x, residual = normal(3, 384) + 3e3, torch.zeros(3, 384)
    shared = NormWeights(torch.ones(384), torch.zeros(384))
    expected = add_layer_norm(x.double(), residual.double(), widened(shared), 1e-12, [], [])

    assert_close(CompiledAddLayerNorm(library)(x, residual, shared, 1e-12, [], []), expected, 1e-3)


def test_nan_stays_in_its_row(library: Library) -> None:
    """Neighbours are as without it."""
    x, residual, shared = normal(3, 40), normal(3, 40, seed=1), norm(40, 2)
    x[1, 5] = torch.nan
    expected = add_layer_norm(x.double(), residual.double(), widened(shared), 1e-12, [], [])

    assert_close(CompiledAddLayerNorm(library)(x, residual, shared, 1e-12, [], []), expected)


def test_a_residual_of_another_type_is_refused(library: Library) -> None:
    """It would be read as what it is not."""
    with pytest.raises(ValueError, match="residual"):
        CompiledAddLayerNorm(library)(
            normal(2, 8), normal(2, 8).bfloat16(), norm(8, 0), 1e-12, [], []
        )
