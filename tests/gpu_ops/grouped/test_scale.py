import pytest
import torch

import gpu_ops.scale
from gpu_ops.grouped.bias_gelu import RowVectors
from gpu_ops.grouped.scale import scale_
from gpu_ops.grouped.segments import row_slots
from tests.gpu_ops.grouped.backend import Backend, assert_same, normal
from tests.gpu_ops.grouped.layouts import NUM_SLOTS, SHAPES, segments


@pytest.mark.parametrize(("num_rows", "width"), SHAPES)
def test_kernel_is_its_reference(
    backend: Backend, dtype: torch.dtype, num_rows: int, width: int
) -> None:
    """Rows without a slot stay as they are."""
    y = normal(num_rows, width, seed=0, dtype=dtype)
    scales = normal(NUM_SLOTS, width, seed=1, dtype=dtype)
    slots = row_slots(segments(num_rows), num_rows)
    expected = y.clone()
    scale_(expected, RowVectors(scales, slots))

    found = backend.put(y)
    scale_(found, RowVectors(backend.put(scales), backend.put(slots)), backend.kernels)

    assert_same(found, expected)


def test_reference_is_the_op_by_spans() -> None:
    """One way of saying which rows are whose, or the other."""
    y = normal(33, 136, seed=0, dtype=torch.float32)
    scales = normal(NUM_SLOTS, 136, seed=1, dtype=torch.float32)
    expected = y.clone()
    own = [(span, scales[slot]) for span, slot in segments(33) if slot >= 0]
    gpu_ops.scale.scale_(expected, [span for span, _ in own], [scale for _, scale in own])

    scale_(y, RowVectors(scales, row_slots(segments(33), 33)))

    assert_same(y, expected)
