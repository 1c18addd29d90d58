import pytest
import torch

import gpu_ops.sparse_delta
from gpu_ops.grouped.segments import TileTable, tile_entries
from gpu_ops.grouped.sparse_delta import DELTA_ROWS, SparsePool, add_sparse_delta_, sparse_pool
from gpu_ops.sparse_delta import SparseWeights, changed_values, sparse_weights
from tests.gpu_ops.grouped.backend import Backend, assert_same, normal
from tests.gpu_ops.grouped.layouts import NUM_SLOTS, SHAPES, segments

OUTPUTS = 520
"""More than a block's."""


def deltas(num_in: int, density: float) -> list[SparseWeights]:
    """Changed, dropped, and in slot 1 no weights."""
    found = []
    for slot in range(NUM_SLOTS):
        generator = torch.Generator().manual_seed(slot)
        hits = torch.rand(OUTPUTS * num_in, generator=generator) < density * (slot != 1)
        flat = hits.nonzero().view(-1).int()
        values = torch.randn(len(flat), generator=generator).half() / 8
        found.append(sparse_weights(flat, values if slot % 2 == 0 else None, (OUTPUTS, num_in)))
    return found


def assert_kernel_is_reference(
    backend: Backend,
    y: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    pool: SparsePool,
    entries: torch.Tensor,
) -> None:
    """Add the sparse product by the reference and on the backend, and compare."""
    expected = y.clone()
    add_sparse_delta_(expected, x, weight, pool, TileTable(entries, DELTA_ROWS))

    found = backend.put(y)
    add_sparse_delta_(
        found,
        backend.put(x),
        backend.put(weight),
        SparsePool(*map(backend.put, pool)),
        TileTable(backend.put(entries), DELTA_ROWS),
        backend.kernels,
    )

    assert_same(found, expected)


@pytest.mark.parametrize(("num_rows", "width"), SHAPES)
@pytest.mark.parametrize("slots", [{0: 0, 2: 2}, {0: 3, 2: 1}])
def test_kernel_is_its_reference(
    backend: Backend, dtype: torch.dtype, num_rows: int, width: int, slots: dict[int, int]
) -> None:
    """Weights that are changed; weights that are dropped, and a slot without any."""
    x = normal(num_rows, width, seed=0, dtype=dtype)
    y = normal(num_rows, OUTPUTS, seed=1, dtype=dtype)
    weight = normal(OUTPUTS, width, seed=2, dtype=dtype, scale=width**-0.5)
    pool = sparse_pool(deltas(width, 0.05), dtype)
    cut = [segment._replace(slot=slots.get(segment.slot, -1)) for segment in segments(num_rows)]
    entries = tile_entries(cut, DELTA_ROWS, capacity=9)

    assert_kernel_is_reference(backend, y, x, weight, pool, entries)


def test_a_wide_input_fits_in_shared_memory(backend: Backend) -> None:
    """More than 48 KiB of it, which must be asked for."""
    num_in = 3072
    x, y = (normal(9, size, seed=0, dtype=torch.float32) for size in (num_in, OUTPUTS))
    weight = normal(OUTPUTS, num_in, seed=2, dtype=torch.float32)
    pool = sparse_pool(deltas(num_in, 0.002), torch.float32)
    entries = tile_entries(segments(9), DELTA_ROWS, capacity=9)

    assert_kernel_is_reference(backend, y, x, weight, pool, entries)


def test_reference_is_the_op_by_spans() -> None:
    """Changes and dropped weights."""
    x, y = (normal(33, size, seed=0, dtype=torch.float32) for size in (136, OUTPUTS))
    weight = normal(OUTPUTS, 136, seed=2, dtype=torch.float32)
    changes = deltas(136, 0.05)
    own = [(span, changes[slot + 1]) for span, slot in segments(33) if slot == 2]
    own += [(span, changes[slot]) for span, slot in segments(33) if slot == 0]
    cut = [segment._replace(slot=3) if segment.slot == 2 else segment for segment in segments(33)]
    expected = y.clone()
    gpu_ops.sparse_delta.add_sparse_delta_(
        expected,
        x,
        [span for span, _ in own],
        [delta for _, delta in own],
        [changed_values(delta, weight) for _, delta in own],
    )

    tiles = TileTable(tile_entries(cut, DELTA_ROWS, capacity=9), DELTA_ROWS)
    add_sparse_delta_(y, x, weight, sparse_pool(changes, torch.float32), tiles)

    assert_same(y, expected)
