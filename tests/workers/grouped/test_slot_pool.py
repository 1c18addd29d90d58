"""Slots: who has one, who gives one up, what memory they take."""

import gc
from collections.abc import Callable, Mapping

import pytest
import torch

from tests.workers.pets import random_task
from workers.engine import Engine
from workers.grouped.slot_pool import FIRST_SLOTS, PoolMemory, SlotPool
from workers.loaded_task import LoadedTask

CPU = torch.device("cpu")
LAYERS, WIDTH = 2, 3
SLOT_BYTES = LAYERS * (WIDTH * 4 + 4)
PLENTY = 1 << 30


class NumberPool(SlotPool):
    """A pool whose slots hold a number of their task's, and which knows whom it filled them for."""

    def __init__(self, memory: PoolMemory, number_of: Mapping[str, int]) -> None:
        self.filled: list[str] = []
        self.sizes: set[int] = set()
        """How many slots there were when one was filled."""

        def fill(task: LoadedTask, slices: Mapping[str, torch.Tensor]) -> None:
            name = task.description.name
            self.filled.append(name)
            self.sizes.add(self.num_slots)
            slices["values"].fill_(number_of[name])
            slices["count"].fill_(number_of[name])

        shapes = {"values": ((WIDTH,), torch.float32), "count": ((), torch.int32)}
        super().__init__(shapes, LAYERS, CPU, memory, fill)

    def numbers(self, slots: list[int]) -> list[int]:
        """Return what the slots hold, in each layer and tensor the same."""
        layers = [self.at(layer, "values")[slots] for layer in range(LAYERS)]
        counts = [self.at(layer, "count")[slots] for layer in range(LAYERS)]
        columns = torch.cat([*layers, *(count[:, None] for count in counts)], dim=1)
        assert torch.equal(columns, columns[:, :1].expand(columns.shape))
        return columns[:, 0].int().tolist()


MakeTask = Callable[[int], LoadedTask]
MakePool = Callable[[PoolMemory], NumberPool]


@pytest.fixture
def make_task(small_engine: Engine) -> MakeTask:
    """Return what makes the n-th task."""
    return lambda n: random_task("ia3", small_engine.backbone.shape, seed=n).load(small_engine)


@pytest.fixture
def make_pool() -> MakePool:
    """Return what makes a pool for tasks 0 to 99."""
    numbers = {f"ia3-single-label-{n}": n for n in range(100)}
    return lambda memory: NumberPool(memory, numbers)


def test_a_task_keeps_its_slot(make_task: MakeTask, make_pool: MakePool) -> None:
    """It is filled once, whoever comes beside it."""
    pool = make_pool(PoolMemory(PLENTY))
    tasks = [make_task(n) for n in range(FIRST_SLOTS + 3)]
    first = pool.slots_of(tasks[:2])

    both = pool.slots_of(tasks)

    assert both[:2] == first
    assert sorted(both) == list(range(len(tasks)))
    assert pool.numbers(both) == list(range(len(tasks)))
    assert len(pool.filled) == len(tasks)


def test_slots_are_in_the_order_of_the_batch(make_task: MakeTask, make_pool: MakePool) -> None:
    """A task that is there twice has one slot."""
    pool = make_pool(PoolMemory(PLENTY))
    a, b = make_task(1), make_task(2)
    pool.slots_of([a, b])

    assert pool.numbers(pool.slots_of([b, a, b])) == [2, 1, 2]


def test_what_was_not_needed_longest_gives_its_slot_up(
    make_task: MakeTask, make_pool: MakePool
) -> None:
    """Where memory for more is used up."""
    pool = make_pool(PoolMemory(FIRST_SLOTS * SLOT_BYTES))
    tasks = [make_task(n) for n in range(FIRST_SLOTS)]
    pool.slots_of(tasks)
    pool.slots_of(tasks[:1])
    newcomers = [make_task(50), make_task(51)]

    found = pool.slots_of(newcomers)

    assert found == [1, 2]
    assert pool.num_slots == FIRST_SLOTS
    pool.filled.clear()
    pool.slots_of([tasks[0], *tasks[3:]])
    assert pool.filled == []
    pool.slots_of(tasks[1:3])
    assert pool.filled == ["ia3-single-label-1", "ia3-single-label-2"]


def test_no_task_of_a_batch_gives_its_slot_up(make_task: MakeTask, make_pool: MakePool) -> None:
    """Though it was not needed longer than all others: the batch gets more memory instead."""
    memory = PoolMemory(0)
    pool = make_pool(memory)
    tasks = [make_task(n) for n in range(5)]
    pool.slots_of(tasks[:3])

    found = pool.slots_of([tasks[3], tasks[0], tasks[1], tasks[2], tasks[4]])

    assert pool.numbers(found) == [3, 0, 1, 2, 4]
    assert pool.num_slots == 5
    assert memory.used_bytes == 5 * SLOT_BYTES


def test_a_batch_that_needs_more_gets_it_at_once(make_task: MakeTask, make_pool: MakePool) -> None:
    """Each growth copies the whole pool."""
    pool = make_pool(PoolMemory(0))
    tasks = [make_task(n) for n in range(6)]

    pool.slots_of(tasks[:2])
    pool.slots_of(tasks)

    assert pool.sizes == {2, 6}


def test_batches_in_turn_find_their_own_weights(make_task: MakeTask, make_pool: MakePool) -> None:
    """Whatever they displace."""
    pool = make_pool(PoolMemory(0))
    tasks = [make_task(n) for n in range(7)]
    for batch in ([0, 1, 2], [3, 1], [4, 5, 6], [6, 0], [2, 3, 4], [0, 1, 2]):
        assert pool.numbers(pool.slots_of([tasks[n] for n in batch])) == batch
    assert pool.num_slots == 3


def test_a_task_that_leaves_memory_frees_its_slot(make_task: MakeTask, make_pool: MakePool) -> None:
    """The next newcomer gets it, before the pool grows or any other task gives its own up."""
    pool = make_pool(PoolMemory(FIRST_SLOTS * SLOT_BYTES))
    tasks = [make_task(n) for n in range(FIRST_SLOTS)]
    pool.slots_of(tasks)

    del tasks[4]
    gc.collect()
    newcomer = make_task(60)

    assert pool.slots_of([newcomer]) == [4]
    pool.filled.clear()
    pool.slots_of(tasks)
    assert pool.filled == []


def test_a_new_task_at_the_place_of_one_that_is_gone_is_filled_anew(
    make_task: MakeTask, make_pool: MakePool
) -> None:
    """Its id may be that of a task whose weights the slot still holds."""
    pool = make_pool(PoolMemory(PLENTY))
    for number in range(20):
        task = make_task(number)
        assert pool.numbers(pool.slots_of([task])) == [number]
        del task


def test_a_task_that_could_not_be_filled_has_no_slot(
    make_task: MakeTask, make_pool: MakePool
) -> None:
    """Nor has anyone lost one: the next task gets it."""
    memory = PoolMemory(0)
    pool = make_pool(memory)
    unknown = make_task(100)

    for _ in range(3):
        with pytest.raises(KeyError):
            pool.slots_of([unknown])

    assert pool.numbers(pool.slots_of([make_task(7)])) == [7]
    assert memory.used_bytes == SLOT_BYTES


def test_memory_is_what_the_tensors_take(make_task: MakeTask, make_pool: MakePool) -> None:
    """Two pools share one account; each starts with some slots and doubles while there is room."""
    memory = PoolMemory(PLENTY)
    pools = [make_pool(memory) for _ in range(2)]
    tasks = [make_task(n) for n in range(FIRST_SLOTS + 1)]
    assert memory.used_bytes == 0

    for pool, count in zip(pools, (1, len(tasks)), strict=True):
        pool.slots_of(tasks[:count])

    assert [pool.num_slots for pool in pools] == [FIRST_SLOTS, 2 * FIRST_SLOTS]
    taken = [
        pool.at(layer, name).nbytes
        for pool in pools
        for layer in range(LAYERS)
        for name in ("values", "count")
    ]
    assert memory.used_bytes == sum(taken) == 3 * FIRST_SLOTS * SLOT_BYTES


def test_a_pool_grows_only_within_the_limit_of_all(
    make_task: MakeTask, make_pool: MakePool
) -> None:
    """What one has taken the other has no room for: its slots go round."""
    memory = PoolMemory(FIRST_SLOTS * SLOT_BYTES)
    full, late = make_pool(memory), make_pool(memory)
    tasks = [make_task(n) for n in range(4)]
    full.slots_of(tasks[:1])

    for task in tasks:
        late.slots_of([task])

    assert late.num_slots == 1


def test_a_pool_grows_by_what_there_is_room_for(make_task: MakeTask, make_pool: MakePool) -> None:
    """Before anybody gives a slot up."""
    pool = make_pool(PoolMemory((FIRST_SLOTS + 2) * SLOT_BYTES))
    tasks = [make_task(n) for n in range(FIRST_SLOTS + 2)]
    pool.slots_of(tasks[:FIRST_SLOTS])

    assert pool.numbers(pool.slots_of(tasks[FIRST_SLOTS:])) == [FIRST_SLOTS, FIRST_SLOTS + 1]
    assert pool.num_slots == FIRST_SLOTS + 2
    pool.filled.clear()
    pool.slots_of(tasks)
    assert pool.filled == []


def test_a_device_that_has_less_than_the_limit_sets_it(
    make_task: MakeTask, make_pool: MakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Growth that fails midway leaves all tensors as they were, and slots go from task to task."""
    memory = PoolMemory(PLENTY)
    pool = make_pool(memory)
    tasks = [make_task(n) for n in range(FIRST_SLOTS + 1)]
    pool.slots_of(tasks[:FIRST_SLOTS])
    new_empty, allocations = torch.Tensor.new_empty, 0

    def used_up_at_the_second(tensor: torch.Tensor, *size: object) -> torch.Tensor:
        nonlocal allocations
        allocations += 1
        if allocations == 2:
            raise torch.OutOfMemoryError
        return new_empty(tensor, *size)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(torch.Tensor, "new_empty", used_up_at_the_second)
    found = pool.slots_of(tasks[FIRST_SLOTS:])

    assert pool.numbers(found) == [FIRST_SLOTS]
    assert {len(pool.at(0, name)) for name in ("values", "count")} == {FIRST_SLOTS}
    assert memory.limit_bytes == memory.used_bytes == FIRST_SLOTS * SLOT_BYTES
    assert pool.numbers(pool.slots_of(tasks[1:5])) == [1, 2, 3, 4]


def test_a_batch_that_a_device_has_no_memory_for_fails(
    make_task: MakeTask, make_pool: MakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the device's own error: a part of the batch may fit."""
    pool = make_pool(PoolMemory(PLENTY))

    def used_up(*_: object) -> torch.Tensor:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(torch.Tensor, "new_empty", used_up)

    with pytest.raises(torch.OutOfMemoryError):
        pool.slots_of([make_task(1)])
