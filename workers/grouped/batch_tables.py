"""What says which rows of a batch are whose, in one buffer: one copy to the device for all of it.

A captured pass reads the buffer of the batch that it was captured with; the next batch's tables,
of the same layout, are written over them.
"""

from math import prod

import numpy as np
import torch
from numpy.typing import NDArray

from gpu_ops.upload import upload


class BatchTables:
    """int32 tables, added while a batch is planned, then brought to the device and read there."""

    def __init__(self, device: torch.device) -> None:
        """There are none yet.

        Args:
            device: Where they are read.
        """
        self._device = device
        self._tables: list[NDArray[np.int32]] = []
        self._buffer: torch.Tensor | None = None
        self._views: list[torch.Tensor] = []

    def add(self, table: NDArray[np.int32]) -> int:
        """Return the number by which a table can be read."""
        assert self._buffer is None, "tables are on the device already"
        self._tables.append(table)
        return len(self._tables) - 1

    def upload(self) -> None:
        """Bring them to the device.

        On the stream from which operators' streams fork: one that an operator is on would be
        waited for by nobody else who reads them.
        """
        self._buffer = upload(self._side_by_side(), self._device)
        parts = torch.split(self._buffer, [prod(shape) for shape in self.layout])
        self._views = [part.view(s) for part, s in zip(parts, self.layout, strict=True)]

    def __getitem__(self, number: int) -> torch.Tensor:
        """Return a table on the device, of the shape that it was added with."""
        assert self._buffer is not None, "tables are not on the device yet"
        return self._views[number]

    @property
    def layout(self) -> tuple[tuple[int, ...], ...]:
        """The tables' shapes, in the order in which they were added."""
        return tuple(table.shape for table in self._tables)

    def overwrite(self, other: "BatchTables") -> None:
        """Write another batch's tables, of the same layout, over these, where those are read."""
        assert self._buffer is not None, "tables are not on the device yet"
        assert self.layout == other.layout
        self._buffer.copy_(other._side_by_side(), non_blocking=True)  # as `upload`

    def _side_by_side(self) -> torch.Tensor:
        return torch.from_numpy(np.concatenate([table.reshape(-1) for table in self._tables]))
