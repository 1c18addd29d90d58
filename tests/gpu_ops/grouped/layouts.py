"""Which rows belong to whom: sizes chosen to hurt."""

from gpu_ops.grouped.segments import NO_SLOT, Segment
from gpu_ops.spans import Span

SHAPES = [(0, 136), (1, 520), (7, 136), (8, 136), (9, 520), (31, 136), (32, 136), (33, 520)]
"""Rows, width. Neither width is a multiple of a chunk, and each takes several."""
NUM_SLOTS = 4


def segments(num_rows: int) -> list[Segment]:
    """Cut rows into tasks: one without a slot, one without rows, slots out of order, one unused."""
    third, half = num_rows // 3, num_rows // 2
    return [
        Segment(Span(0, third), 2),
        Segment(Span(third, half), NO_SLOT),
        Segment(Span(half, half), 1),
        Segment(Span(half, num_rows), 0),
    ]
