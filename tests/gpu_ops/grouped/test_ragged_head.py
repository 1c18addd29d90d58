import pytest
import torch

import gpu_ops.ragged_head
from gpu_ops.grouped.ragged_head import HeadPool, head_pool, ragged_head
from gpu_ops.grouped.segments import row_slots
from gpu_ops.ragged_head import HeadWeights
from tests.gpu_ops.grouped.backend import TOLERANCES, Backend, normal
from tests.gpu_ops.grouped.layouts import SHAPES, segments

LABELS = (2, 1, 77, 5)
MAX_LABELS = 80


def heads(width: int, dtype: torch.dtype) -> list[HeadWeights]:
    return [
        HeadWeights(
            normal(count, width, seed=count, dtype=dtype, scale=width**-0.5),
            normal(count, seed=count + 1, dtype=dtype),
        )
        for count in LABELS
    ]


@pytest.mark.parametrize(("num_rows", "width"), SHAPES)
def test_kernel_is_its_reference(
    backend: Backend, dtype: torch.dtype, num_rows: int, width: int
) -> None:
    """One label, and more than a block has warps; zero behind a row's labels."""
    vectors, pool = normal(num_rows, width, seed=0, dtype=dtype), head_pool(heads(width, dtype))
    slots = row_slots(segments(num_rows), num_rows)
    expected = ragged_head(vectors, pool, slots, MAX_LABELS)

    found = ragged_head(
        backend.put(vectors),
        HeadPool(*map(backend.put, pool)),
        backend.put(slots),
        MAX_LABELS,
        backend.kernels,
    )

    tolerance = TOLERANCES[torch.float32]  # what is summed is exact in float32
    torch.testing.assert_close(found.cpu(), expected, rtol=tolerance, atol=tolerance)


def test_reference_is_the_op_by_spans() -> None:
    """Which returns a tensor per task."""
    vectors, layers = normal(33, 136, seed=0, dtype=torch.float32), heads(136, torch.float32)
    own = [(span, layers[slot]) for span, slot in segments(33) if slot >= 0]
    expected = gpu_ops.ragged_head.ragged_head(
        vectors, [span for span, _ in own], [head for _, head in own]
    )

    found = ragged_head(vectors, head_pool(layers), row_slots(segments(33), 33), MAX_LABELS)

    for (span, _), logits in zip(own, expected, strict=True):
        count = logits.shape[1]
        torch.testing.assert_close(found[span.start : span.end, :count], logits)
        assert found[span.start : span.end, count:].eq(0).all()
