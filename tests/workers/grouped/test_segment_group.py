"""Tables of a group of segments: those of `gpu_ops.grouped.segments`, whatever slots they name."""

import gc
import weakref
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from gpu_ops.grouped.segments import NO_SLOT, row_slots, tile_entries
from gpu_ops.grouped.segments import Segment as RowGroup
from gpu_ops.grouped.tiles import tile_rows_for
from tests.workers.grouped.ways import token_ids
from tests.workers.pets import identity_task
from workers.engine import Engine, EngineRow
from workers.grouped.pass_sizes import PassSizes
from workers.grouped.segment_group import FEWEST_TILES, SegmentGroup
from workers.packed_batch import Segment, pack

LENGTHS = (5, 64, 1, 33, 16, 8)
"""Tokens of each segment: less than a tile, tiles that are full, and one token over."""
NUM_TOKENS = 128
SIZES = PassSizes(192, 8, 64)


@pytest.fixture
def segments(small_engine: Engine) -> list[Segment]:
    """Those of a batch in which each task has a row."""
    rows = [EngineRow(identity_task(small_engine), token_ids(n, n)) for n in LENGTHS]
    return pack(rows, range(len(rows)), small_engine.backbone.shape, 1).segments


def test_segments_follow_one_another(segments: Sequence[Segment]) -> None:
    """So that the tables below are of what a batch has."""
    ends = np.cumsum(LENGTHS).tolist()

    assert [tuple(segment.tokens) for segment in segments] == list(
        zip([0, *ends[:-1]], ends, strict=True)
    )


@pytest.mark.parametrize("tile_rows", [8, 16, 64])
@pytest.mark.parametrize("numbers", [range(6), (1, 3, 4), (0, 5), (2,)])
def test_tables_are_those_that_kernels_are_tested_with(
    segments: Sequence[Segment], numbers: Sequence[int], tile_rows: int
) -> None:
    """Of pools whose slots differ, of tiles of several sizes, for all segments or some."""
    own = [segments[number] for number in numbers]
    group = SegmentGroup(own, NUM_TOKENS, None)
    rng = np.random.default_rng(tile_rows)
    for _ in range(3):
        slots = rng.permutation(20)[: len(own)].tolist()
        groups = [RowGroup(s.tokens, slot) for s, slot in zip(own, slots, strict=True)]
        num_tiles = sum(-(-s.tokens.num_rows // tile_rows) for s in own)

        tiles = torch.from_numpy(group.tiles(slots, tile_rows))

        assert torch.equal(tiles, tile_entries(groups, tile_rows, num_tiles))
        assert torch.equal(
            torch.from_numpy(group.token_slots(slots)), row_slots(groups, NUM_TOKENS)
        )


def test_a_captured_pass_has_room_for_more(segments: Sequence[Segment]) -> None:
    """Tokens of padding and tiles that are not used have no slot."""
    group = SegmentGroup(segments, NUM_TOKENS, SIZES)
    slots = [7, 0, 3, 9, 1, 4]
    groups = [RowGroup(s.tokens, slot) for s, slot in zip(segments, slots, strict=True)]

    few, many = (torch.from_numpy(group.tiles(slots, rows)) for rows in (16, 4))

    assert torch.equal(few, tile_entries(groups, 16, FEWEST_TILES))
    assert torch.equal(many, tile_entries(groups, 4, 2 * FEWEST_TILES))
    assert torch.equal(
        torch.from_numpy(group.token_slots(slots)), row_slots(groups, SIZES.num_tokens)
    )


def test_nobody_has_slots_where_there_is_no_segment() -> None:
    """As of vectors that no task of a batch has."""
    assert set(SegmentGroup([], NUM_TOKENS, None).token_slots([]).tolist()) == {NO_SLOT}


def test_the_size_of_tiles_goes_by_all_segments(segments: Sequence[Segment]) -> None:
    """And by the columns of each product."""
    group = SegmentGroup(segments, NUM_TOKENS, None)

    for columns in (16, 4096, 16):
        assert group.tile_rows(columns, 32) == tile_rows_for(LENGTHS, columns, 32)


def test_a_group_keeps_no_task(small_engine: Engine) -> None:
    """A captured pass keeps the groups of the batch that it was captured with."""
    rows = [EngineRow(identity_task(small_engine), token_ids(1, 4))]
    batch = pack(rows, [0], small_engine.backbone.shape, 1)
    group = SegmentGroup(batch.segments, NUM_TOKENS, None)
    task = weakref.ref(rows[0].task)

    del rows, batch
    gc.collect()

    assert task() is None
    assert group.tiles([2], 16).tolist() == [[2, 0, 4]]
