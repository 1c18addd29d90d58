import pytest
import torch

import gpu_ops.layer_norm
from gpu_ops.grouped.layer_norm import NormPool, add_layer_norm
from gpu_ops.grouped.segments import row_slots
from gpu_ops.layer_norm import NormWeights
from tests.gpu_ops.grouped.backend import Backend, assert_same, normal
from tests.gpu_ops.grouped.layouts import NUM_SLOTS, SHAPES, segments

EPS = 1e-12


def pool_of(num_rows: int, width: int, dtype: torch.dtype) -> NormPool:
    return NormPool(
        normal(3, width, seed=1, dtype=dtype),
        normal(NUM_SLOTS, 3, width, seed=2, dtype=dtype),
        row_slots(segments(num_rows), num_rows),
    )


@pytest.mark.parametrize(("num_rows", "width"), SHAPES)
@pytest.mark.parametrize("shift", [0.0, 30.0])
def test_kernel_is_its_reference(
    backend: Backend, dtype: torch.dtype, num_rows: int, width: int, shift: float
) -> None:
    """Also where the mean is far larger than what lies around it."""
    x = normal(num_rows, width, seed=3, dtype=dtype) + shift
    residual = normal(num_rows, width, seed=4, dtype=dtype)
    pool = pool_of(num_rows, width, dtype)
    expected = add_layer_norm(x, residual, pool, EPS)

    found = add_layer_norm(
        backend.put(x),
        backend.put(residual),
        NormPool(*map(backend.put, pool)),
        EPS,
        backend.kernels,
    )

    assert_same(found, expected)


@pytest.mark.parametrize("place", ["x", "residual"])
def test_it_may_write_where_it_reads(backend: Backend, dtype: torch.dtype, place: str) -> None:
    """And returns what it wrote to."""
    tensors = {name: normal(33, 520, seed=3, dtype=dtype) for name in ("x", "residual")}
    pool = pool_of(33, 520, dtype)
    expected = add_layer_norm(tensors["x"], tensors["residual"], pool, EPS)
    there = {name: backend.put(tensor) for name, tensor in tensors.items()}
    own_pool = NormPool(*map(backend.put, pool))

    found = add_layer_norm(
        there["x"], there["residual"], own_pool, EPS, backend.kernels, out=there[place]
    )

    assert found is there[place]
    assert_same(found, expected)


def test_reference_is_the_op_by_spans() -> None:
    """With the bias added before."""
    x, residual = (normal(33, 136, seed=seed, dtype=torch.float32) for seed in (3, 4))
    pool = pool_of(33, 136, torch.float32)
    biased = x + pool.shared[0]
    own = [(span, pool.params[slot]) for span, slot in segments(33) if slot >= 0]
    for span, params in own:
        biased[span.start : span.end] += params[0] - pool.shared[0]
    expected = gpu_ops.layer_norm.add_layer_norm(
        biased,
        residual,
        NormWeights(pool.shared[1], pool.shared[2]),
        EPS,
        [span for span, _ in own],
        [NormWeights(params[1], params[2]) for _, params in own],
    )

    assert_same(add_layer_norm(x, residual, pool, EPS), expected)
