"""Compiled biases and scales against the formula in float64."""

import pytest
import torch

from gpu_ops.compiled.library import Library
from gpu_ops.compiled.vectors import CompiledVectors
from gpu_ops.spans import Span
from tests.gpu_ops.compiled.conftest import assert_close, normal

LAYOUTS = {
    "one": (5, [Span(0, 5)]),
    "single rows": (4, [Span(0, 1), Span(1, 2), Span(3, 4)]),
    "gaps": (133, [Span(2, 9), Span(31, 64), Span(64, 97)]),
    "an empty span": (6, [Span(1, 1), Span(2, 5), Span(6, 6)]),
    "none": (7, []),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("width", [1, 7, 16, 100, 384])
def test_each_task_s_rows_are_changed_by_its_vector(
    library: Library, dtype: torch.dtype, layout: str, width: int
) -> None:
    """Vectors of both types that they are held in, in one call; other rows keep their values."""
    rows, spans = LAYOUTS[layout]
    x = normal(rows, width).to(dtype)
    vectors = [
        normal(width, seed=10 + i).to((torch.float16, torch.float32)[i % 2])
        for i in range(len(spans))
    ]
    added, scaled = x.double(), x.double()
    for (start, end), vector in zip(spans, vectors, strict=True):
        added[start:end] += vector.double()
        scaled[start:end] *= vector.double()
    operators, found = CompiledVectors(library), (x.clone(), x.clone())

    operators.add_bias_(found[0], spans, vectors)
    operators.scale_(found[1], spans, vectors)

    for one, expected in zip(found, (added, scaled), strict=True):
        assert_close(one, expected)
        outside = torch.ones(rows, dtype=torch.bool)
        for start, end in spans:
            outside[start:end] = False
        assert one[outside].equal(x[outside])


def test_a_bfloat16_row_is_rounded_once(library: Library) -> None:
    """A bias between two bfloat16 values is not rounded before it is added."""
    y, bias = torch.full((1, 3), 1.0, dtype=torch.bfloat16), torch.full((3,), 2.0**-8 + 2.0**-18)
    rounded_before = y + bias.bfloat16()

    CompiledVectors(library).add_bias_(y, [Span(0, 1)], [bias])

    assert y.tolist() == [[1.0078125] * 3]
    assert rounded_before.tolist() == [[1.0] * 3]


def test_nan_stays_in_its_row(library: Library, dtype: torch.dtype) -> None:
    x = normal(5, 24).to(dtype)
    x[3, 7] = torch.nan

    CompiledVectors(library).scale_(x, [Span(0, 5)], [torch.ones(24)])

    assert x.isnan().nonzero().tolist() == [[3, 7]]


@pytest.mark.parametrize(
    "vector", [torch.ones(7), torch.ones(8).bfloat16(), torch.ones(16)[::2]], ids=str
)
def test_what_it_would_read_wrongly_is_refused(library: Library, vector: torch.Tensor) -> None:
    """Vectors of another length, of another type, and views with gaps."""
    with pytest.raises(ValueError, match=r"expected float16 or float32 vectors of 8|contiguous"):
        CompiledVectors(library).add_bias_(torch.zeros(2, 8), [Span(0, 1)], [vector])
