"""Compiled sparse changes against dense ones in float64."""

import pytest
import torch

from gpu_ops.compiled.library import Library
from gpu_ops.compiled.sparse_delta import CompiledSparseDelta
from gpu_ops.spans import Span
from gpu_ops.sparse_delta import SparseWeights, sparse_weights
from tests.gpu_ops.compiled.conftest import assert_close, normal

SHAPES = [(1, 1), (40, 24), (65, 600), (3, 33_000)]
"""The last has columns in four bytes; half of the weights of the third have offsets in four."""
SPANS = [Span(0, 1), Span(1, 4), Span(9, 41), Span(41, 41 + 135)]


def change(
    shape: tuple[int, int], density: float, form: str, weight: torch.Tensor, seed: int
) -> tuple[SparseWeights, torch.Tensor]:
    """Return a random change in its compact and in its dense form."""
    is_hit = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < density
    values = -weight if form == "dropped" else normal(*shape, seed=seed)
    if form == "float16":
        values = values.half().float()
    flat = is_hit.view(-1).nonzero().view(-1)
    stored = None if form == "dropped" else values.view(-1)[flat]
    if stored is not None and form == "float16":
        stored = stored.half()
    return sparse_weights(flat.int(), stored, shape), (values * is_hit).double()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("density", [0.0, 0.01, 1.0])
@pytest.mark.parametrize("form", ["float32", "float16", "dropped"])
def test_a_patched_weight_is_the_sum(
    library: Library, shape: tuple[int, int], density: float, form: str
) -> None:
    """What is dropped is exactly 0, what is not changed exactly the shared weight."""
    weight = normal(*shape, seed=7)
    delta, dense = change(shape, density, form, weight, seed=1)
    kept = weight.clone()

    patched = CompiledSparseDelta(library).patch_weight(weight, delta, torch.empty_like(weight))

    assert weight.equal(kept)
    assert patched.equal((weight.double() + dense).float())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("density", [0.01, 0.6])
@pytest.mark.parametrize("form", ["float32", "float16", "dropped"])
def test_a_product_beside_is_that_of_the_dense_change(
    library: Library, dtype: torch.dtype, shape: tuple[int, int], density: float, form: str
) -> None:
    """In the spans alone, for few rows and for more than are taken at once."""
    num_out, num_in = shape
    num_rows = SPANS[-1].end + 3
    weight = normal(*shape, seed=7)
    x = (normal(num_rows, num_in) / max(1.0, (density * num_in) ** 0.5)).to(dtype)
    y = normal(num_rows, num_out, seed=1).to(dtype)
    expected = y.double()
    deltas = []
    for seed, (start, end) in enumerate(SPANS):
        delta, dense = change(shape, density, form, weight, seed)
        deltas.append(delta)
        expected[start:end] += x[start:end].double() @ dense.t()

    CompiledSparseDelta(library).add_sparse_delta_(y, x, SPANS, deltas, weight)

    assert_close(y, expected, 1e-2 if dtype == torch.bfloat16 else 2e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_copy_goes_from_one_change_to_the_next(library: Library, shape: tuple[int, int]) -> None:
    """What only the change before had is the shared weight again."""
    weight = normal(*shape, seed=7)
    ops, copy, before = CompiledSparseDelta(library), torch.empty(shape), None
    for seed, (form, density) in enumerate([("dropped", 0.9), ("float16", 0.01), ("dropped", 0.5)]):
        delta, dense = change(shape, density, form, weight, seed)

        ops.patch_weight(weight, delta, copy, before)

        assert copy.equal((weight.double() + dense).float())
        before = delta


@pytest.mark.parametrize("value", [65504.0, 6e-8, -6.1e-5, 0.0, -0.0, 1.5])
def test_float16_values_keep_their_value(library: Library, value: float) -> None:
    """The largest, denormal ones and zeros."""
    delta = sparse_weights(
        torch.tensor([1], dtype=torch.int32), torch.tensor([value]).half(), (1, 3)
    )

    patched = CompiledSparseDelta(library).patch_weight(torch.zeros(1, 3), delta, torch.empty(1, 3))

    assert patched[0, 1] == torch.tensor(value).half().float()
    assert patched[0, 0] == patched[0, 2] == 0


def test_what_it_would_read_wrongly_is_refused(library: Library) -> None:
    """Views, and weights of another type than float32."""
    delta = sparse_weights(torch.tensor([1], dtype=torch.int32), None, (4, 4))
    ops = CompiledSparseDelta(library)

    with pytest.raises(ValueError, match="contiguous"):
        ops.patch_weight(normal(4, 4).t(), delta, torch.empty(4, 4))
    with pytest.raises(ValueError, match="contiguous"):
        ops.add_sparse_delta_(normal(4, 4).t(), normal(4, 4), [Span(0, 4)], [delta], normal(4, 4))
    with pytest.raises(ValueError, match="float32"):
        ops.patch_weight(normal(4, 4).bfloat16(), delta, torch.empty(4, 4))
