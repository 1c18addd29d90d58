"""Weights of the tasks that ran last, side by side in tensors that grouped operators read.

A kernel finds a task's weights by its slot. A task gets one when a batch first needs it, in each
pool that its ops need. A slot holds all layers of one kind of op, in the type that is computed in:
what a task is held as in the tiers of `workers/task_manager.py` is as stored.

All pools share one limit. A slot's age is the batch that last needed it; one whose task left memory
is older than any other. A pool that needs a slot for which there is no room gets, in this order,

1. the room of other pools' slots that are older than its own oldest one, those longest idle first:
   a pool of such slots alone loses its tensors, one of which they are half or more is cut down to
   the younger ones. Less than half stays: each cut copies what is left, and ends the graphs that
   were captured with the pool;
2. its own oldest slot, if the batch does not need it;
3. the room of all slots that the batch does not need, half by half, of pools longest idle first;
4. memory beyond the limit.

So pools that recurring batches need in turn exchange slots within themselves, whatever one of them
lacks, until another has been idle for longer than its own slots; and more than the limit is taken
only for what one batch needs by itself, and kept until others need the room. No slot that a batch
needs moves from when it is given until the next batch asks for its own.
"""

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import takewhile

import torch

from workers.loaded_task import LoadedTask

FIRST_SLOTS = 8
NEVER = -1
"""The age of a pool that no task in memory has a slot of."""
Shapes = Mapping[str, tuple[tuple[int, ...], torch.dtype]]
"""Shape of one task's part of a layer, and its type, by the tensor's name."""
Slices = Mapping[str, torch.Tensor]
"""A task's slot of each tensor of a pool, shape (layers, ...)."""
Fill = Callable[[LoadedTask, Slices], None]
"""Writes a task's weights into its slot, all of it."""


class PoolMemory:
    """What the pools of one encoder take together, and which of them gives up what."""

    def __init__(self, limit_bytes: int) -> None:
        """Nothing is taken yet.

        Args:
            limit_bytes: Of all pools. A batch that needs more by itself gets it.
        """
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self._pools: list[SlotPool] = []
        self._batch = 0

    def add(self, pool: "SlotPool") -> None:
        """Let a pool take memory."""
        self._pools.append(pool)

    def give_slots(self, needs: Mapping["SlotPool", Sequence[LoadedTask]]) -> None:
        """Give each task of a batch a slot in each pool that it needs, filled.

        Any pool may have other tensors, and fewer slots, afterwards.

        Args:
            needs: The tasks of the whole batch, by pool.

        Raises:
            torch.OutOfMemoryError: If the device has no memory for the batch.
        """
        self._batch += 1
        for pool in self._pools:
            pool.expect(needs.get(pool, ()), self._batch)
        for pool in needs:
            self._make_free_slots(pool)
        for pool, tasks in needs.items():
            pool.fill(tasks, self._batch)

    def _make_free_slots(self, pool: "SlotPool") -> None:
        while pool.num_short:
            oldest = pool.oldest_before(self._batch)
            if oldest is None:
                self._take_unneeded(pool)
            elif self._room < pool.slot_bytes:
                self._take_older(pool, oldest)
                if self._room < pool.slot_bytes:
                    pool.free_oldest()
                    continue
            step = max(FIRST_SLOTS, pool.num_slots)
            grown_by = min(-(-pool.num_short // step) * step, self._room // pool.slot_bytes)
            try:
                pool.grow(grown_by if oldest is not None else max(grown_by, pool.num_short))
            except torch.OutOfMemoryError:
                # The device has less than the limit: from here on that is the limit.
                held_bytes = self.used_bytes
                if oldest is None and not self._take_half(pool):
                    raise
                self.limit_bytes = min(self.limit_bytes, held_bytes)

    @property
    def _room(self) -> int:
        return max(0, self.limit_bytes - self.used_bytes)

    def _take_older(self, pool: "SlotPool", age: int) -> None:
        """Make room for a slot of what other pools needed last before a pool's oldest slot."""
        for other in self._longest_idle_first(pool):
            if self._room >= pool.slot_bytes:
                return
            num_older = other.num_spare(age)
            if 2 * num_older >= other.num_slots:
                _could_shrink(other, num_older)

    def _take_unneeded(self, pool: "SlotPool") -> None:
        """Make room for all that a pool is short of, as far as the batch leaves any."""
        while self._room < pool.num_short * pool.slot_bytes and self._take_half(pool):
            pass

    def _take_half(self, pool: "SlotPool") -> bool:
        """Cut the one longest idle of the other pools; return whether any could be cut."""
        for other in self._longest_idle_first(pool):
            spare = other.num_spare(self._batch)
            # Where a device has no memory for what the half would leave, all may still go.
            if spare and any(_could_shrink(other, n) for n in ((spare + 1) // 2, spare)):
                return True
        return False

    def _longest_idle_first(self, pool: "SlotPool") -> list["SlotPool"]:
        others = [other for other in self._pools if other is not pool and other.num_slots]
        return sorted(others, key=lambda other: other.last_needed)


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
            memory: Shared with other pools; it gives the slots.
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
        self.slot_bytes = num_layers * sum(
            torch.Size(shape).numel() * dtype.itemsize for shape, dtype in shapes.values()
        )
        self._slots: dict[int, int] = {}
        """By the id of the task; the one needed longest ago first."""
        self._ages: dict[int, int] = {}
        """The batch that last needed a slot, by the id of its task."""
        self._tasks: dict[int, weakref.ref[LoadedTask]] = {}
        self._free: list[int] = []
        """The last one is given first."""
        self._num_missing = 0
        """Tasks of the batch that have no slot yet."""
        self._gone: list[int] = []
        """Ids of tasks that left memory, noted by whichever thread let go of them."""
        memory.add(self)

    def slots_of(self, tasks: Sequence[LoadedTask]) -> list[int]:
        """Return the slot of each task; it must have been given one for the batch that runs."""
        return [self._slots[id(task)] for task in tasks]

    def at(self, layer: int, name: str) -> torch.Tensor:
        """Return one layer of a tensor, shape (slots, ...)."""
        return self._tensors[name][layer]

    @property
    def num_slots(self) -> int:
        """How many there are, taken or free."""
        return next(iter(self._tensors.values())).shape[1]

    @property
    def num_short(self) -> int:
        """How many more free slots the batch needs than there are."""
        return max(0, self._num_missing - len(self._free))

    @property
    def last_needed(self) -> int:
        """The batch that last needed any task in memory that has a slot; NEVER if none has."""
        return self._ages[next(reversed(self._slots))] if self._slots else NEVER

    def oldest_before(self, batch: int) -> int | None:
        """Return the age of the oldest slot that is taken; None: none was last needed before."""
        key = next(iter(self._slots), None)
        return None if key is None or self._ages[key] >= batch else self._ages[key]

    def num_spare(self, batch: int) -> int:
        """Return how many slots were last needed before a batch, or are free and stay so."""
        older = takewhile(lambda key: self._ages[key] < batch, self._slots)
        return max(0, len(self._free) + sum(1 for _ in older) - self._num_missing)

    def expect(self, tasks: Iterable[LoadedTask], batch: int) -> None:
        """Note what a batch needs, and free the slots of tasks that left memory."""
        while self._gone:
            key = self._gone.pop()
            if key in self._slots:
                self._free.append(self._take_from(key))
        wanted = dict.fromkeys(map(id, tasks))
        held = [key for key in wanted if key in self._slots]
        self._num_missing = len(wanted) - len(held)
        # Out and in again: those needed last are the last ones.
        self._slots.update({key: self._slots.pop(key) for key in held})
        self._ages.update(dict.fromkeys(held, batch))

    def fill(self, tasks: Iterable[LoadedTask], batch: int) -> None:
        """Give free slots, of which there are enough, to those tasks of a batch that have none."""
        if not self._num_missing:
            return
        for task in tasks:
            key = id(task)
            if key in self._slots:
                continue
            slot = self._free.pop()
            try:
                self._fill(task, {name: all_[:, slot] for name, all_ in self._tensors.items()})
            except Exception:  # of memory that is used up, say: the next batch may find some
                self._free.append(slot)
                raise
            self._slots[key] = slot
            self._ages[key] = batch
            self._tasks[key] = weakref.ref(task, partial(self._note_gone, key))
            self._num_missing -= 1

    def free_oldest(self) -> None:
        """Take a slot from the task that was needed longest ago."""
        self._free.insert(0, self._take_from(next(iter(self._slots))))

    def grow(self, num_slots: int) -> None:
        """Add slots; those that there are keep their places."""
        first = self.num_slots
        grown: dict[str, torch.Tensor] = {}
        for name, all_ in self._tensors.items():
            grown[name] = all_.new_empty((all_.shape[0], first + num_slots, *all_.shape[2:]))
            grown[name][:, :first] = all_
        self._take_tensors(grown)
        self._free[:0] = range(first + num_slots - 1, first - 1, -1)

    def shrink(self, num_slots: int) -> None:
        """Give slots up that a batch can spare, and the memory: free ones, then the oldest."""
        left = self.num_slots - num_slots
        num_kept = min(len(self._slots), left - self._num_missing)
        kept = list(self._slots)[len(self._slots) - num_kept :]
        slots = [self._slots[key] for key in kept]
        shrunk: dict[str, torch.Tensor] = {}
        for name, all_ in self._tensors.items():
            shrunk[name] = all_.new_empty((all_.shape[0], left, *all_.shape[2:]))
            shrunk[name][:, :num_kept] = all_[:, slots]
        self._take_tensors(shrunk)
        while len(self._slots) > num_kept:
            self._take_from(next(iter(self._slots)))
        self._slots = {key: slot for slot, key in enumerate(kept)}
        self._free = [*range(left - 1, num_kept - 1, -1)]

    def _take_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        """Go over to other tensors, all at once: until they are made the pool stays what it was."""
        change = next(iter(tensors.values())).shape[1] - self.num_slots
        self._tensors = tensors
        self.generation += 1
        self._memory.used_bytes += change * self.slot_bytes

    def _note_gone(self, key: int, _: "weakref.ref[LoadedTask]") -> None:
        self._gone.append(key)

    def _take_from(self, key: int) -> int:
        del self._tasks[key], self._ages[key]
        return self._slots.pop(key)


def _could_shrink(pool: SlotPool, num_slots: int) -> bool:
    """Shrink a pool if there is memory for what it keeps, which is copied."""
    try:
        pool.shrink(num_slots)
    except torch.OutOfMemoryError:
        return False
    return True
