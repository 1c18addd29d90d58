"""The values of dropped weights, for the masks that were used last.

A mask in memory is positions alone; its values are the backbone's. To read them takes a quarter of
the time of a short row, so those of the masks in use are kept, within a budget.
"""

import threading
from collections import OrderedDict

import torch

from gpu_ops.sparse_delta import SparseWeights, changed_values

LIMIT_BYTES = 64 << 20
"""Some 60 masks of 5 % on MiniLM-L3, 30 on MiniLM-L6."""


class DroppedValues:
    """What sparse changes add, within a budget. May be used from any thread."""

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._lock = threading.Lock()
        # The one used longest ago first. A key keeps its change alive, so ids are never reused.
        self._kept: OrderedDict[SparseWeights, torch.Tensor] = OrderedDict()
        self._num_bytes = 0

    def of(self, delta: SparseWeights, weight: torch.Tensor) -> torch.Tensor:
        """Return what a change adds, shape (num_changed,).

        Args:
            delta: A change of `weight`; always of the same one.
            weight: Shape (out, in), contiguous.
        """
        if delta.values is not None:
            return delta.values
        with self._lock:
            values = self._kept.get(delta)
            if values is not None:
                self._kept.move_to_end(delta)
                return values
        values = changed_values(delta, weight)
        with self._lock:
            if delta not in self._kept:
                self._kept[delta] = values
                self._num_bytes += values.nbytes
            while self._num_bytes > self._limit_bytes:
                _, oldest = self._kept.popitem(last=False)
                self._num_bytes -= oldest.nbytes
        return values
