"""A captured graph serves the next batch: descriptors of fixed capacity are filled anew."""

import pytest
import torch

from gpu_ops.grouped.layer_norm import NormPool, add_layer_norm
from gpu_ops.grouped.low_rank import LowRankPool, add_low_rank_
from gpu_ops.grouped.segments import Segment, TileTable, row_slots, tile_entries
from gpu_ops.spans import Span
from tests.gpu_ops.grouped.backend import Backend, assert_same, normal

ROWS, WIDTH, CAPACITY = 33, 136, 6
DTYPE = torch.float16
FIRST = [Segment(Span(0, 33), 1)]
NEXT = [Segment(Span(0, 5), 2), Segment(Span(5, 6), 0), Segment(Span(9, 30), 1)]


@pytest.mark.gpu
def test_a_graph_is_replayed_for_another_batch(device: Backend) -> None:
    """Other rows, other tasks, no new launch from the host."""
    x = normal(ROWS, WIDTH, seed=0, dtype=DTYPE)
    pool = LowRankPool(
        normal(3, 8, WIDTH, seed=1, dtype=DTYPE, scale=0.1),
        normal(3, WIDTH, 8, seed=2, dtype=DTYPE),
    )
    shared, params = (normal(*size, seed=3, dtype=DTYPE) for size in ((3, WIDTH), (3, 3, WIDTH)))
    there = LowRankPool(*map(device.put, pool))
    x_there, y = device.put(x), device.put(x)
    slots = device.put(row_slots(FIRST, ROWS))
    tiles = TileTable(device.put(tile_entries(FIRST, 16, CAPACITY)), 16)
    norms = NormPool(device.put(shared), device.put(params), slots)

    def run() -> torch.Tensor:
        y.copy_(x_there)
        add_low_rank_(y, x_there, there, tiles)
        add_low_rank_(y, x_there, there, slots)
        return add_layer_norm(y, x_there, norms, 1e-12)

    run()  # compiles, which a capture must not
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = run()
    for segments in (FIRST, NEXT):
        slots.copy_(row_slots(segments, ROWS))
        tiles.entries.copy_(tile_entries(segments, 16, CAPACITY))
        graph.replay()

        expected = x.clone()
        groups = TileTable(tile_entries(segments, 16, CAPACITY), 16)
        add_low_rank_(expected, x, pool, groups)
        add_low_rank_(expected, x, pool, row_slots(segments, ROWS))
        own = NormPool(shared, params, row_slots(segments, ROWS))
        assert_same(out, add_layer_norm(expected, x, own, 1e-12))
