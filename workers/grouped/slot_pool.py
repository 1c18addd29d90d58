"""Weights of the tasks that ran last, side by side in tensors that grouped operators read.

A kernel finds a task's weights by its slot. A task gets one when a batch first needs it; where
memory for all pools is used up, what was not needed longest in the same pool gives its slot up. A
slot holds all layers of one kind of op, in the type that is computed in: what a task is held as in
the tiers of `workers/task_manager.py` is as stored.
"""

import weakref
from collections.abc import Callable, Mapping, Sequence

import torch

from workers.loaded_task import LoadedTask

FIRST_SLOTS = 8
Shapes = Mapping[str, tuple[tuple[int, ...], torch.dtype]]
"""Shape of one task's part of a layer, and its type, by the tensor's name."""
Slices = Mapping[str, torch.Tensor]
"""A task's slot of each tensor of a pool, shape (layers, ...)."""
Fill = Callable[[LoadedTask, Slices], None]
"""Writes a task's weights into its slot, all of it."""


class PoolMemory:
    """What the pools of one encoder take together."""

    def __init__(self, limit_bytes: int) -> None:
        """Nothing is taken yet.

        Args:
            limit_bytes: Of all pools. A batch that needs more gets it.
        """
        self.limit_bytes = limit_bytes
        self.used_bytes = 0


class SlotPool:
    """Tensors of shape (layers, slots, ...) by name. Used from one thread."""

    def __init__(
        self,
        shapes: Shapes,
        num_layers: int,
        device: torch.device,
        memory: PoolMemory,
        fill: Fill,
    ) -> None:
        """Start without a slot.

        Args:
            shapes: Of the tensors.
            num_layers: Of the backbone.
            device: Where the tensors are.
            memory: Shared with other pools.
            fill: Called for each task that gets a slot.
        """
        self._memory = memory
        self._fill = fill
        self.generation = 0
        """Another one: its tensors are others than before."""
        self._tensors = {
            name: torch.zeros((num_layers, 0, *shape), dtype=dtype, device=device)
            for name, (shape, dtype) in shapes.items()
        }
        self._slot_bytes = num_layers * sum(
            torch.Size(shape).numel() * dtype.itemsize for shape, dtype in shapes.values()
        )
        self._slots: dict[int, int] = {}
        """By the id of the task; the one used longest ago first."""
        self._tasks: dict[int, weakref.ref[LoadedTask]] = {}
        self._free: list[int] = []
        self._gone: list[int] = []
        """Ids of tasks that left memory, noted by whichever thread let go of them."""

    def slots_of(self, tasks: Sequence[LoadedTask]) -> list[int]:
        """Return the slot of each task of a batch, filled.

        The pool's tensors may be others afterwards.
        """
        while self._gone:
            key = self._gone.pop()
            if key in self._slots:
                self._free.append(self._take_from(key))
        wanted = {id(task) for task in tasks}
        for task in tasks:
            if id(task) not in self._slots:
                self._keep(task, self._filled(task, wanted))
            else:
                self._slots[id(task)] = self._slots.pop(id(task))
        return [self._slots[id(task)] for task in tasks]

    def at(self, layer: int, name: str) -> torch.Tensor:
        """Return one layer of a tensor, shape (slots, ...)."""
        return self._tensors[name][layer]

    @property
    def num_slots(self) -> int:
        """How many there are, taken or free."""
        return next(iter(self._tensors.values())).shape[1]

    def _filled(self, task: LoadedTask, wanted: set[int]) -> int:
        slot = self._next_slot(wanted)
        try:
            self._fill(task, {name: all_[:, slot] for name, all_ in self._tensors.items()})
        except Exception:  # of memory that is used up, say: the next batch may find some
            self._free.append(slot)
            raise
        return slot

    def _next_slot(self, wanted: set[int]) -> int:
        if self._free:
            return self._free.pop()
        room = max(0, self._memory.limit_bytes - self._memory.used_bytes) // self._slot_bytes
        grown_by = min(max(FIRST_SLOTS, self.num_slots), room)
        oldest = next((key for key in self._slots if key not in wanted), None)
        if not grown_by and oldest is not None:
            return self._take_from(oldest)
        try:
            self._grow(grown_by or len(wanted - self._slots.keys()))
        except torch.OutOfMemoryError:
            if oldest is None:
                raise
            # The device has less than the limit: from here on that is the limit.
            self._memory.limit_bytes = self._memory.used_bytes
            return self._take_from(oldest)
        return self._free.pop()

    def _grow(self, num_slots: int) -> None:
        first = self.num_slots
        grown: dict[str, torch.Tensor] = {}
        for name, all_ in self._tensors.items():
            grown[name] = all_.new_empty((all_.shape[0], first + num_slots, *all_.shape[2:]))
            grown[name][:, :first] = all_
        # All at once: where memory is used up midway, the pool stays what it was.
        self._tensors = grown
        self.generation += 1
        self._memory.used_bytes += num_slots * self._slot_bytes
        self._free += range(first + num_slots - 1, first - 1, -1)

    def _keep(self, task: LoadedTask, slot: int) -> None:
        key = id(task)
        self._slots[key] = slot
        self._tasks[key] = weakref.ref(task, lambda _: self._gone.append(key))

    def _take_from(self, key: int) -> int:
        del self._tasks[key]
        return self._slots.pop(key)
