import pytest
import torch

from gpu_ops.bias import add_bias_
from gpu_ops.grouped.bias_gelu import RowVectors, bias_gelu_
from gpu_ops.grouped.segments import row_slots
from tests.gpu_ops.grouped.backend import Backend, assert_same, normal
from tests.gpu_ops.grouped.layouts import NUM_SLOTS, SHAPES, segments


@pytest.mark.parametrize(("num_rows", "width"), SHAPES)
@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("is_scaled", [False, True])
def test_kernel_is_its_reference(
    backend: Backend, dtype: torch.dtype, num_rows: int, width: int, gelu: bool, is_scaled: bool
) -> None:
    """Bias, GELU and scale, in place."""
    y, shared = normal(num_rows, width, seed=0, dtype=dtype), normal(width, seed=1, dtype=dtype)
    biases = normal(NUM_SLOTS, width, seed=2, dtype=dtype)
    scales = normal(NUM_SLOTS, width, seed=3, dtype=dtype)
    slots = row_slots(segments(num_rows), num_rows)
    expected = y.clone()
    bias_gelu_(
        expected,
        shared,
        RowVectors(biases, slots),
        gelu=gelu,
        scales=RowVectors(scales, slots.flip(0)) if is_scaled else None,
    )

    found = backend.put(y)
    own_scales = RowVectors(backend.put(scales), backend.put(slots.flip(0)))
    bias_gelu_(
        found,
        backend.put(shared),
        RowVectors(backend.put(biases), backend.put(slots)),
        gelu=gelu,
        scales=own_scales if is_scaled else None,
        kernels=backend.kernels,
    )

    assert_same(found, expected)


def test_reference_is_the_op_by_spans() -> None:
    """A task's bias instead of the shared one, as if added to the product by itself."""
    dtype = torch.float32
    y, shared = normal(33, 136, seed=0, dtype=dtype), normal(136, seed=1, dtype=dtype)
    biases = normal(NUM_SLOTS, 136, seed=2, dtype=dtype)
    expected = y.clone()
    by_slot = {span: biases[slot] if slot >= 0 else shared for span, slot in segments(33)}
    add_bias_(expected, list(by_slot), list(by_slot.values()))

    bias_gelu_(y, shared, RowVectors(biases, row_slots(segments(33), 33)), gelu=False)

    assert_same(y, expected)
