import pytest
import torch

import gpu_ops.low_rank
from gpu_ops.grouped.low_rank import EXPAND_OUTPUTS, LowRankPool, add_low_rank_
from gpu_ops.grouped.segments import TILE_ROWS, TileTable, row_slots, tile_entries
from gpu_ops.low_rank import LowRankFactors, UpFactor
from tests.gpu_ops.grouped.backend import Backend, assert_same, normal
from tests.gpu_ops.grouped.layouts import NUM_SLOTS, SHAPES, segments

OUTPUTS = 72
"""Of a block: more than a tile's columns, and no multiple of them."""


def pool_of(num_in: int, rank: int, blocks: int, dtype: torch.dtype) -> LowRankPool:
    """Slot 0 has rank 1, the others all that there is."""
    down = normal(NUM_SLOTS, blocks * rank, num_in, seed=1, dtype=dtype, scale=num_in**-0.5)
    up = normal(NUM_SLOTS, blocks * OUTPUTS, rank, seed=2, dtype=dtype)
    down[0].view(blocks, rank, num_in)[:, 1:] = 0
    up[0, :, 1:] = 0
    return LowRankPool(down, up)


def groups_of(num_rows: int, tile_rows: int | None) -> torch.Tensor | TileTable:
    if tile_rows is None:
        return row_slots(segments(num_rows), num_rows)
    return TileTable(tile_entries(segments(num_rows), tile_rows, capacity=7), tile_rows)


@pytest.mark.parametrize(("num_rows", "width"), SHAPES)
@pytest.mark.parametrize(("rank", "blocks"), [(8, 1), (24, 3)])
@pytest.mark.parametrize("tile_rows", [None, *TILE_ROWS])
def test_kernel_is_its_reference(
    backend: Backend,
    dtype: torch.dtype,
    num_rows: int,
    width: int,
    rank: int,
    blocks: int,
    tile_rows: int | None,
) -> None:
    """By rows and by tiles; one block of outputs, and three with ranks of their own."""
    x = normal(num_rows, width, seed=3, dtype=dtype)
    y = normal(num_rows, blocks * OUTPUTS, seed=4, dtype=dtype)
    pool, groups = pool_of(width, rank, blocks, dtype), groups_of(num_rows, tile_rows)
    expected = y.clone()
    add_low_rank_(expected, x, pool, groups)

    found = backend.put(y)
    there = (
        TileTable(backend.put(groups.entries), groups.tile_rows)
        if isinstance(groups, TileTable)
        else backend.put(groups)
    )
    own_pool = LowRankPool(*map(backend.put, pool))
    add_low_rank_(found, backend.put(x), own_pool, there, backend.kernels)

    assert_same(found, expected)


@pytest.mark.parametrize(
    ("rank", "outputs"),
    [
        pytest.param(24, EXPAND_OUTPUTS + 72, id="more outputs than a block has"),
        pytest.param(264, 72, id="ranks that take memory which must be asked for"),
    ],
)
def test_small_tiles_of_a_wide_product(backend: Backend, rank: int, outputs: int) -> None:
    """Each block of outputs shrinks for itself, and to 16 ranks at a time."""
    x = normal(33, 136, seed=3, dtype=torch.bfloat16)
    y = normal(33, 2 * outputs, seed=4, dtype=torch.bfloat16)
    pool = LowRankPool(
        normal(NUM_SLOTS, 2 * rank, 136, seed=1, dtype=torch.bfloat16, scale=136**-0.5),
        normal(NUM_SLOTS, 2 * outputs, rank, seed=2, dtype=torch.bfloat16, scale=rank**-0.5),
    )
    entries = tile_entries(segments(33), 16, capacity=7)
    expected = y.clone()
    add_low_rank_(expected, x, pool, TileTable(entries, 16))

    found = backend.put(y)
    there = TileTable(backend.put(entries), 16)
    add_low_rank_(
        found, backend.put(x), LowRankPool(*map(backend.put, pool)), there, backend.kernels
    )

    assert_same(found, expected)


@pytest.mark.parametrize("tile_rows", [None, 16])
def test_reference_is_the_op_by_spans(tile_rows: int | None) -> None:
    """With an up factor for each block."""
    x = normal(33, 136, seed=3, dtype=torch.float32)
    y = normal(33, 3 * OUTPUTS, seed=4, dtype=torch.float32)
    pool = pool_of(136, 8, 3, torch.float32)
    expected = y.clone()
    own = [(span, slot) for span, slot in segments(33) if slot >= 0]
    factors = [
        LowRankFactors(
            pool.down[slot],
            tuple(
                UpFactor(8 * b, OUTPUTS * b, pool.up[slot, OUTPUTS * b : OUTPUTS * (b + 1)])
                for b in range(3)
            ),
        )
        for _, slot in own
    ]
    gpu_ops.low_rank.add_low_rank_(expected, x, [span for span, _ in own], factors)

    add_low_rank_(y, x, pool, groups_of(33, tile_rows))

    assert_same(y, expected)


def test_rows_that_kernels_cannot_read_are_refused(backend: Backend) -> None:
    """A kernel reads 16 bytes at a time and would read past the end."""
    pool = pool_of(134, 8, 1, torch.float16)
    x = normal(5, 134, seed=0, dtype=torch.float16)
    y = normal(5, OUTPUTS, seed=0, dtype=torch.float16)

    with pytest.raises(ValueError, match="multiple of 16 bytes"):
        add_low_rank_(
            backend.put(y),
            backend.put(x),
            LowRankPool(*map(backend.put, pool)),
            backend.put(row_slots(segments(5), 5)),
            backend.kernels,
        )
