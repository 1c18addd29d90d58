import pytest

from gpu_ops.grouped.segments import NO_SLOT, Segment, TileTable, listed, row_slots, tile_entries
from gpu_ops.spans import Span

SEGMENTS = [
    Segment(Span(0, 5), 3),
    Segment(Span(5, 7), NO_SLOT),
    Segment(Span(7, 7), 1),
    Segment(Span(8, 24), 0),
]


def test_each_row_has_its_segments_slot() -> None:
    """Rows between segments and behind the last one have none."""
    assert row_slots(SEGMENTS, 26).tolist() == [3] * 5 + [-1] * 3 + [0] * 16 + [-1] * 2


def test_tiles_cover_each_segment_and_nothing_else() -> None:
    """The last one of a segment may be short; unused ones have no slot."""
    entries = tile_entries(SEGMENTS, 8, capacity=5)

    assert entries.tolist() == [[3, 0, 5], [0, 8, 8], [0, 16, 8], [-1, 0, 0], [-1, 0, 0]]
    assert listed(TileTable(entries, 8)) == [
        Segment(Span(0, 5), 3),
        Segment(Span(8, 16), 0),
        Segment(Span(16, 24), 0),
    ]


def test_a_table_without_tiles_keeps_its_shape() -> None:
    """Of no rows at all."""
    assert tile_entries([], 16, capacity=0).shape == (0, 3)


def test_what_does_not_fit_is_refused() -> None:
    """A captured graph has descriptors of one size."""
    with pytest.raises(ValueError, match="at most 2 tiles, got 3"):
        tile_entries(SEGMENTS, 8, capacity=2)
    with pytest.raises(ValueError, match="rows up to 20, got a segment up to 24"):
        row_slots(SEGMENTS, 20)
