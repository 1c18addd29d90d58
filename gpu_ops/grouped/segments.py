"""Which rows belong to which slot, as the kernels read it: a slot per row, or tiles of rows.

Both are made on the host, where a batch is put together, and copied to tensors on the device whose
size never changes, so that a captured CUDA graph can be replayed for the next batch. A worker makes
them for many operators at once (`workers.grouped.segment_group`), equal to those made here.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from gpu_ops.spans import Span

NO_SLOT = -1
"""Of rows without a weight of their own, and of unused tiles."""
TILE_ROWS = (16, 64)
"""Sizes of tiles that dense kernels exist for."""


class Segment(NamedTuple):
    """Rows of one task."""

    span: Span
    slot: int
    """Of the task's weights in a pool; NO_SLOT if it has none there."""


class TileTable(NamedTuple):
    """Tiles of rows, on the device."""

    entries: torch.Tensor
    """Shape (capacity, 3), int32: slot, first row, number of rows, 1 to `tile_rows`."""
    tile_rows: int


def row_slots(segments: Sequence[Segment], capacity: int) -> torch.Tensor:
    """Return the slot of each row, shape (capacity,), int32, on the CPU.

    Args:
        segments: Disjoint.
        capacity: Rows of the tensor; those in no segment have NO_SLOT.

    Raises:
        ValueError: If a segment ends behind the capacity.
    """
    slots = torch.full((capacity,), NO_SLOT, dtype=torch.int32)
    for (start, end), slot in segments:
        if end > capacity:
            raise ValueError(f"expected rows up to {capacity}, got a segment up to {end}")
        slots[start:end] = slot
    return slots


def tile_entries(segments: Sequence[Segment], tile_rows: int, capacity: int) -> torch.Tensor:
    """Cut segments into tiles and return their table, shape (capacity, 3), int32, on the CPU.

    Args:
        segments: Disjoint; those with NO_SLOT get no tiles.
        tile_rows: Rows of a tile at most; a segment's last tile may have fewer.
        capacity: Tiles of the table; the unused ones have NO_SLOT.

    Raises:
        ValueError: If there are more tiles.
    """
    tiles = [
        (slot, first, min(tile_rows, span.end - first))
        for span, slot in segments
        if slot != NO_SLOT
        for first in range(span.start, span.end, tile_rows)
    ]
    if len(tiles) > capacity:
        raise ValueError(f"expected at most {capacity} tiles, got {len(tiles)}")
    unused = [(NO_SLOT, 0, 0)] * (capacity - len(tiles))
    return torch.tensor(tiles + unused, dtype=torch.int32).view(-1, 3)


def listed(tiles: TileTable) -> list[Segment]:
    """Return the tiles in use. Waits for the device: for references on the CPU."""
    entries = (map(int, entry) for entry in tiles.entries.tolist())
    return [
        Segment(Span(first, first + num_rows), slot)
        for slot, first, num_rows in entries
        if slot != NO_SLOT
    ]
