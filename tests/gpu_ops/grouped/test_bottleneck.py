import pytest
import torch

import gpu_ops.bottleneck
from gpu_ops.bottleneck import BottleneckWeights
from gpu_ops.grouped.bottleneck import BottleneckPool, add_bottleneck_
from gpu_ops.grouped.segments import TILE_ROWS, TileTable, tile_entries
from tests.gpu_ops.grouped.backend import Backend, assert_same, normal
from tests.gpu_ops.grouped.layouts import NUM_SLOTS, SHAPES, segments


def pool_of(width: int, bottleneck: int, dtype: torch.dtype) -> BottleneckPool:
    return BottleneckPool(
        normal(NUM_SLOTS, bottleneck, width, seed=1, dtype=dtype, scale=width**-0.5),
        normal(NUM_SLOTS, bottleneck, seed=2, dtype=dtype),
        normal(NUM_SLOTS, width, bottleneck, seed=3, dtype=dtype, scale=bottleneck**-0.5),
        normal(NUM_SLOTS, width, seed=4, dtype=dtype),
        torch.tensor([0, 1, 1, 0], dtype=torch.int32),
    )


@pytest.mark.parametrize(("num_rows", "width"), SHAPES)
@pytest.mark.parametrize("bottleneck", [8, 72])
@pytest.mark.parametrize("tile_rows", TILE_ROWS)
def test_kernel_is_its_reference(
    backend: Backend,
    dtype: torch.dtype,
    num_rows: int,
    width: int,
    bottleneck: int,
    tile_rows: int,
) -> None:
    """Narrower and wider than a tile's columns; GELU in one slot, ReLU in another."""
    h, pool = normal(num_rows, width, seed=0, dtype=dtype), pool_of(width, bottleneck, dtype)
    entries = tile_entries(segments(num_rows), tile_rows, capacity=7)
    expected = h.clone()
    add_bottleneck_(expected, pool, TileTable(entries, tile_rows))

    found = backend.put(h)
    add_bottleneck_(
        found,
        BottleneckPool(*map(backend.put, pool)),
        TileTable(backend.put(entries), tile_rows),
        backend.kernels,
    )

    assert_same(found, expected)


def test_reference_is_the_op_by_spans() -> None:
    """With its residual."""
    h, pool = normal(33, 136, seed=0, dtype=torch.float32), pool_of(136, 8, torch.float32)
    own = [(span, slot) for span, slot in segments(33) if slot >= 0]
    expected = h.clone()
    gpu_ops.bottleneck.add_bottleneck_(
        expected,
        [span for span, _ in own],
        [
            BottleneckWeights(
                pool.down_weight[slot],
                pool.down_bias[slot],
                pool.up_weight[slot],
                pool.up_bias[slot],
                "relu" if pool.is_relu[slot] else "gelu",
            )
            for _, slot in own
        ],
    )

    add_bottleneck_(h, pool, TileTable(tile_entries(segments(33), 16, capacity=7), 16))

    assert_same(h, expected)
