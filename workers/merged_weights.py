"""Weights with a task's changes written in, kept for the changes that are used most.

A mask or a diff is otherwise written into a copy of the shared weight at each use. A kept copy
spares that, and is packed like the shared weight; but it takes as much memory as the weight, so
that only few tasks can have it. Which ones is told by counting uses, not by the last use: tasks
that come in turn would push one another out, and be merged each time for nothing.
"""

import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass

from workers.linear_backends import Linear
from workers.task_ops import SparseChange

MIN_USES = 4
"""Before a change is merged: merging costs about as much as two uses of an unmerged one."""
USES_BETWEEN_HALVINGS = 1 << 14
"""All counts are halved then, so that what was hot yesterday makes room."""


class MergedWeights:
    """Keeps products with changed weights. May be used from any thread.

    Args:
        limit_bytes: What the kept weights may take together; 0 keeps none.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        # A change may leave memory while this thread holds the lock.
        self._lock = threading.RLock()
        self._entries: dict[int, _Entry] = {}
        """By the id of the change."""
        self._num_bytes = 0
        self._num_uses = 0

    def product_of(
        self, change: SparseChange, num_bytes: int, merge: Callable[[], Linear]
    ) -> Linear | None:
        """Count a use of a change; return the product with its weight if that is kept.

        Args:
            change: Of the shared weight.
            num_bytes: What the product would take.
            merge: Makes it; called if it is to be kept from now on.

        Returns:
            None: the change is to be applied in another way.
        """
        if num_bytes > self._limit_bytes:
            return None
        with self._lock:
            entry = self._counted(change)
            if entry.product is not None or not self._make_room(entry, num_bytes):
                return entry.product
            # Taken now, so that no other thread takes the room meanwhile, or merges it as well.
            entry.num_bytes = num_bytes
            self._num_bytes += num_bytes
        product = None
        try:
            product = merge()
        finally:
            with self._lock:
                entry.product = product
                if product is None:
                    self._num_bytes -= entry.num_bytes
                    entry.num_bytes = 0
        return product

    @property
    def num_kept(self) -> int:
        """How many weights are kept."""
        with self._lock:
            return sum(entry.product is not None for entry in self._entries.values())

    @property
    def num_bytes(self) -> int:
        """What the kept weights take together."""
        return self._num_bytes

    def _counted(self, change: SparseChange) -> "_Entry":
        key = id(change)
        entry = self._entries.get(key)
        if entry is None:
            entry = _Entry(weakref.ref(change, lambda _: self._forget(key)))
            self._entries[key] = entry
        entry.num_uses += 1
        self._num_uses += 1
        if self._num_uses >= USES_BETWEEN_HALVINGS:
            self._num_uses = 0
            for any_entry in self._entries.values():
                any_entry.num_uses //= 2
        return entry

    def _make_room(self, entry: "_Entry", num_bytes: int) -> bool:
        """Let go of what is used less than half as often; tell whether there is room then."""
        if entry.num_bytes or entry.num_uses < MIN_USES:
            return False
        colder = sorted(
            (e for e in self._entries.values() if e.product and 2 * e.num_uses < entry.num_uses),
            key=lambda e: e.num_uses,
        )
        if self._num_bytes + num_bytes - sum(e.num_bytes for e in colder) > self._limit_bytes:
            return False
        while self._num_bytes + num_bytes > self._limit_bytes:
            leaving = colder.pop(0)
            self._num_bytes -= leaving.num_bytes
            leaving.num_bytes, leaving.product = 0, None
        return True

    def _forget(self, key: int) -> None:
        with self._lock:
            entry = self._entries.pop(key, None)
            if entry is not None:
                self._num_bytes -= entry.num_bytes


@dataclass(slots=True, eq=False)
class _Entry:
    of_change: "weakref.ref[SparseChange]"
    """Lives as long as the entry, and tells when the change left memory."""
    num_uses: int = 0
    num_bytes: int = 0
    """What is taken for it; not 0 while it is merged."""
    product: Linear | None = None
