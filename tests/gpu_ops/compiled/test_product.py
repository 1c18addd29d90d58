"""The compiled product against the formula in float64."""

import pytest
import torch

from gpu_ops.compiled.library import Library
from gpu_ops.compiled.product import CompiledProduct
from gpu_ops.sparse_delta import sparse_weights
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
    chosen = torch.rand(num_out * num_in, generator=torch.Generator().manual_seed(3)) < density
    places = chosen.nonzero().flatten()
    added = None if values is None else normal(len(places), seed=4).to(values)
    changed = weight.double().flatten()
    if added is None:
        changed[places] = 0.0
    else:
        changed[places] += added.double()
    packed = CompiledProduct(library).packed(weight, bias)
    delta = sparse_weights(places.int(), added, shape)
    before = packed(x)

    found = packed.changed(x, delta)

    expected = x.double() @ changed.view(num_out, num_in).t() + bias.double()
    assert_close(found, expected, 5e-5)
    assert torch.equal(packed.changed(x[:5], delta), found[:5])
    assert torch.equal(packed(x), before)


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
        lambda: packed.changed(x.double(), delta),
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
