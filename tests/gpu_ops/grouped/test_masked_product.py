import pytest
import torch

from gpu_ops.grouped.masked_product import masked_product_, pack_mask, unpack_mask
from gpu_ops.grouped.segments import TILE_ROWS, TileTable, tile_entries
from tests.gpu_ops.grouped.backend import Backend, assert_same, normal
from tests.gpu_ops.grouped.layouts import NUM_SLOTS, SHAPES, segments

OUTPUTS = 136
"""More than a block's."""


def masks(num_in: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.rand(NUM_SLOTS, OUTPUTS, num_in, generator=generator) > 0.3


@pytest.mark.parametrize(("num_rows", "width"), SHAPES)
@pytest.mark.parametrize("tile_rows", TILE_ROWS)
def test_kernel_is_its_reference(
    backend: Backend, dtype: torch.dtype, num_rows: int, width: int, tile_rows: int
) -> None:
    """Rows of other tasks stay as they are."""
    x = normal(num_rows, width, seed=0, dtype=dtype)
    y = normal(num_rows, OUTPUTS, seed=1, dtype=dtype)
    weight = normal(OUTPUTS, width, seed=2, dtype=dtype, scale=width**-0.5)
    kept = pack_mask(masks(width))
    entries = tile_entries(segments(num_rows), tile_rows, capacity=7)
    expected = y.clone()
    masked_product_(expected, x, weight, kept, TileTable(entries, tile_rows))

    found = backend.put(y)
    masked_product_(
        found,
        backend.put(x),
        backend.put(weight),
        backend.put(kept),
        TileTable(backend.put(entries), tile_rows),
        backend.kernels,
    )

    assert_same(found, expected)


def test_a_mask_survives_its_bits() -> None:
    """At an eighth of a byte to a weight."""
    is_kept = masks(136)

    kept = pack_mask(is_kept)

    assert kept.shape == (NUM_SLOTS, OUTPUTS, 17)
    assert unpack_mask(kept).equal(is_kept)


def test_reference_is_the_plain_product() -> None:
    """Of the weight with the dropped ones at zero."""
    x = normal(33, 136, seed=0, dtype=torch.float32)
    y = normal(33, OUTPUTS, seed=1, dtype=torch.float32)
    weight = normal(OUTPUTS, 136, seed=2, dtype=torch.float32)
    expected = y.clone()
    for (start, end), slot in segments(33):
        if slot >= 0:
            expected[start:end] = x[start:end] @ torch.where(masks(136)[slot], weight, 0.0).t()
    tiles = TileTable(tile_entries(segments(33), 16, capacity=7), 16)

    masked_product_(y, x, weight, pack_mask(masks(136)), tiles)

    assert_same(y, expected)
