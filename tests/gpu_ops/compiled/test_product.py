"""The compiled product against the formula in float64."""

import pytest
import torch

from gpu_ops.compiled.library import Library
from gpu_ops.compiled.product import CompiledProduct
from gpu_ops.spans import Span
from gpu_ops.sparse_delta import SparseWeights, sparse_weights
from tests.gpu_ops.compiled.conftest import assert_close, normal

SHAPES = [(384, 384), (40, 24), (33, 500), (7, 3), (1, 8), (97, 769)]
"""Outputs that fill no panel, inputs that are no whole vector and more than one block."""


@pytest.mark.parametrize("num_rows", [1, 5, 16, 133, 341])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_row_is_multiplied(library: Library, shape: tuple[int, int], num_rows: int) -> None:
    """By a weight in panels and by one as it is; 341 rows are more than a block, and a tile."""
    weight, bias = normal(*shape) / shape[1] ** 0.5, normal(shape[0], seed=1)
    x = normal(num_rows, shape[1], seed=2)
    expected = x.double() @ weight.double().t()
    product = CompiledProduct(library)

    assert_close(product.packed(weight, bias)(x), expected + bias.double())
    assert_close(product(x, weight, bias), expected + bias.double())
    assert_close(product(x, weight), expected)


def random_change(
    weight: torch.Tensor, density: float, values: torch.dtype | None, seed: int = 3
) -> tuple[SparseWeights, torch.Tensor]:
    """Return a change and the weight with it, float64; without `values` weights are dropped."""
    generator = torch.Generator().manual_seed(seed)
    places = (torch.rand(weight.numel(), generator=generator) < density).nonzero().flatten()
    added = None if values is None else normal(len(places), seed=seed + 1).to(values)
    changed = weight.double().flatten()
    if added is None:
        changed[places] = 0.0
    else:
        changed[places] += added.double()
    delta = sparse_weights(places.int(), added, (len(weight), weight.shape[1]))
    return delta, changed.view_as(weight)


@pytest.mark.parametrize("values", [None, torch.float16, torch.float32])
@pytest.mark.parametrize("density", [0.004, 0.3, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_task_s_change_is_in_its_weight(
    library: Library, shape: tuple[int, int], density: float, values: torch.dtype | None
) -> None:
    """Dropped weights are zero, others are added to; the shared weight stays as it is."""
    num_out, num_in = shape
    weight, bias = normal(*shape) / num_in**0.5, normal(num_out, seed=1)
    x = normal(19, num_in, seed=2)
    packed = CompiledProduct(library).packed(weight, bias)
    delta, changed = random_change(weight, density, values)
    before = packed(x)

    found = packed.with_changes(x, [Span(0, 19)], [delta])

    assert_close(found, x.double() @ changed.t() + bias.double(), 5e-5)
    assert torch.equal(packed.with_changes(x[:5], [Span(0, 5)], [delta]), found[:5])
    assert torch.equal(packed(x), before)


@pytest.mark.parametrize(
    ("num_rows", "spans"),
    [
        (70, [(0, 1), (1, 2), (2, 9), (30, 31), (33, 70)]),
        (70, [(0, 0), (5, 6), (8, 8), (60, 69), (70, 70)]),
        (900, [(3, 170), (170, 340), (500, 900)]),
        (420, [(start, start + 7) for start in range(0, 420, 7)]),
        (40, [(start, start + 1) for start in range(40)]),
    ],
)
@pytest.mark.parametrize("shape", [(33, 500), (97, 769), (40, 24)])
def test_every_task_has_its_own_change(
    library: Library, shape: tuple[int, int], num_rows: int, spans: list[tuple[int, int]]
) -> None:
    """Bit for bit as alone, whatever others change in the same panel; those between change nothing.

    With tasks of a row, of no row, of more than a block, and side by side or not.
    """
    num_out, num_in = shape
    weight, bias = normal(*shape) / num_in**0.5, normal(num_out, seed=1)
    x = normal(num_rows, num_in, seed=2)
    packed = CompiledProduct(library).packed(weight, bias)
    kinds = [(0.3, None), (0.01, torch.float16), (1.0, torch.float32)]
    deltas = [
        random_change(weight, *kinds[number % 3], seed=number)[0] for number in range(len(spans))
    ]
    expected = packed(x)
    for (start, end), delta in zip(spans, deltas, strict=True):
        own = [Span(0, end - start)]
        expected[start:end] = packed.with_changes(x[start:end], own, [delta])

    found = packed.with_changes(x, [Span(*span) for span in spans], deltas)

    assert torch.equal(found, expected)


def test_rows_and_weights_may_lie_apart(library: Library) -> None:
    """Tensors that are not contiguous are taken like any others."""
    x, weight = normal(12, 40)[::2], normal(40, 10).t()
    expected = x.double() @ weight.double().t()
    product = CompiledProduct(library)

    assert_close(product(x, weight), expected)
    assert_close(product.packed(weight.contiguous(), torch.zeros(10))(x), expected)


def test_no_rows_give_no_rows(library: Library) -> None:
    product = CompiledProduct(library)

    assert product(torch.empty(0, 8), normal(3, 8)).shape == (0, 3)
    assert product.packed(normal(3, 8), torch.zeros(3))(torch.empty(0, 8)).shape == (0, 3)


def test_other_types_are_refused(library: Library) -> None:
    """They would be read as float32."""
    x, weight, bias = normal(2, 8), normal(3, 8), normal(3)
    product = CompiledProduct(library)
    packed = product.packed(weight, bias)
    delta = sparse_weights(torch.tensor([1], dtype=torch.int32), None, (3, 8))

    for call in (
        lambda: product(x.bfloat16(), weight, bias),
        lambda: product(x, weight.double(), bias),
        lambda: product.packed(weight.half(), bias),
        lambda: packed(x.bfloat16()),
        lambda: packed.with_changes(x.double(), [Span(0, 2)], [delta]),
    ):
        with pytest.raises(ValueError, match="float32"):
            call()


def test_nan_and_infinity_stay_in_their_rows(library: Library) -> None:
    """Rows share tiles with others, and the last tile has places that no row fills."""
    x, weight, bias = normal(9, 24), normal(16, 24), normal(16, seed=1)
    x[4, 3], x[7, 0] = torch.nan, torch.inf
    product = CompiledProduct(library)

    for found in (product(x, weight, bias), product.packed(weight, bias)(x)):
        assert found.isfinite().all(dim=1).tolist() == [row not in (4, 7) for row in range(9)]


def test_a_row_does_not_depend_on_those_beside_it(library: Library) -> None:
    """Bit for bit: each row's sums are taken in the same order wherever it stands."""
    x, weight, bias = normal(50, 500), normal(33, 500), normal(33, seed=1)
    packed = CompiledProduct(library).packed(weight, bias)

    whole = packed(x)

    for row in (0, 7, 49):
        assert torch.equal(packed(x[row : row + 1])[0], whole[row])
