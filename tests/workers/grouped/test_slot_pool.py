"""Slots: who has one, who gives one up, what memory they take."""

import gc
import weakref
from collections.abc import Callable, Mapping, Sequence

import numpy as np
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

    def __init__(
        self, memory: PoolMemory, number_of: Mapping[str, int], width: int = WIDTH
    ) -> None:
        self.memory = memory
        self.filled: list[str] = []
        self.sizes: set[int] = set()
        """How many slots there were when one was filled."""

        def fill(task: LoadedTask, slices: Mapping[str, torch.Tensor]) -> None:
            name = task.description.name
            self.filled.append(name)
            self.sizes.add(self.num_slots)
            slices["values"].fill_(number_of[name])
            slices["count"].fill_(number_of[name])

        shapes = {"values": ((width,), torch.float32), "count": ((), torch.int32)}
        super().__init__(shapes, LAYERS, CPU, memory, fill)

    def batch(self, tasks: Sequence[LoadedTask]) -> list[int]:
        """Run a batch that needs no other pool; return its tasks' slots."""
        self.memory.give_slots({self: tasks})
        return self.slots_of(tasks)

    def tensor_bytes(self) -> int:
        """Return what its tensors take."""
        return sum(tensor.nbytes for tensor in self._tensors.values())

    def numbers(self, slots: list[int]) -> list[int]:
        """Return what the slots hold, in each layer and tensor the same."""
        layers = [self.at(layer, "values")[slots] for layer in range(LAYERS)]
        counts = [self.at(layer, "count")[slots] for layer in range(LAYERS)]
        columns = torch.cat([*layers, *(count[:, None] for count in counts)], dim=1)
        assert torch.equal(columns, columns[:, :1].expand(columns.shape))
        return columns[:, 0].int().tolist()


MakeTask = Callable[[int], LoadedTask]
MakePool = Callable[..., NumberPool]


@pytest.fixture
def make_task(small_engine: Engine) -> MakeTask:
    """Return what makes the n-th task."""
    return lambda n: random_task("ia3", small_engine.backbone.shape, seed=n).load(small_engine)


@pytest.fixture
def make_pool() -> MakePool:
    """Return what makes a pool for tasks 0 to 99."""
    numbers = {f"ia3-single-label-{n}": n for n in range(100)}
    return lambda memory, width=WIDTH: NumberPool(memory, numbers, width)


def test_a_task_keeps_its_slot(make_task: MakeTask, make_pool: MakePool) -> None:
    """It is filled once, whoever comes beside it."""
    pool = make_pool(PoolMemory(PLENTY))
    tasks = [make_task(n) for n in range(FIRST_SLOTS + 3)]
    first = pool.batch(tasks[:2])

    both = pool.batch(tasks)

    assert both[:2] == first
    assert sorted(both) == list(range(len(tasks)))
    assert pool.numbers(both) == list(range(len(tasks)))
    assert len(pool.filled) == len(tasks)


def test_slots_are_in_the_order_of_the_batch(make_task: MakeTask, make_pool: MakePool) -> None:
    """A task that is there twice has one slot."""
    pool = make_pool(PoolMemory(PLENTY))
    a, b = make_task(1), make_task(2)
    pool.batch([a, b])

    assert pool.numbers(pool.batch([b, a, b])) == [2, 1, 2]


def test_what_was_not_needed_longest_gives_its_slot_up(
    make_task: MakeTask, make_pool: MakePool
) -> None:
    """Where memory for more is used up."""
    pool = make_pool(PoolMemory(FIRST_SLOTS * SLOT_BYTES))
    tasks = [make_task(n) for n in range(FIRST_SLOTS)]
    pool.batch(tasks)
    pool.batch(tasks[:1])
    newcomers = [make_task(50), make_task(51)]

    found = pool.batch(newcomers)

    assert found == [1, 2]
    assert pool.num_slots == FIRST_SLOTS
    pool.filled.clear()
    pool.batch([tasks[0], *tasks[3:]])
    assert pool.filled == []
    pool.batch(tasks[1:3])
    assert pool.filled == ["ia3-single-label-1", "ia3-single-label-2"]


def test_no_task_of_a_batch_gives_its_slot_up(make_task: MakeTask, make_pool: MakePool) -> None:
    """Though it was not needed longer than all others: the batch gets more memory instead."""
    memory = PoolMemory(0)
    pool = make_pool(memory)
    tasks = [make_task(n) for n in range(5)]
    pool.batch(tasks[:3])

    found = pool.batch([tasks[3], tasks[0], tasks[1], tasks[2], tasks[4]])

    assert pool.numbers(found) == [3, 0, 1, 2, 4]
    assert pool.num_slots == 5
    assert memory.used_bytes == 5 * SLOT_BYTES


def test_a_batch_that_needs_more_gets_it_at_once(make_task: MakeTask, make_pool: MakePool) -> None:
    """Each growth copies the whole pool."""
    pool = make_pool(PoolMemory(0))
    tasks = [make_task(n) for n in range(6)]

    pool.batch(tasks[:2])
    pool.batch(tasks)

    assert pool.sizes == {2, 6}


def test_batches_in_turn_find_their_own_weights(make_task: MakeTask, make_pool: MakePool) -> None:
    """Whatever they displace."""
    pool = make_pool(PoolMemory(0))
    tasks = [make_task(n) for n in range(7)]
    for batch in ([0, 1, 2], [3, 1], [4, 5, 6], [6, 0], [2, 3, 4], [0, 1, 2]):
        assert pool.numbers(pool.batch([tasks[n] for n in batch])) == batch
    assert pool.num_slots == 3


def test_a_task_that_leaves_memory_frees_its_slot(make_task: MakeTask, make_pool: MakePool) -> None:
    """The next newcomer gets it, before the pool grows or any other task gives its own up."""
    pool = make_pool(PoolMemory(FIRST_SLOTS * SLOT_BYTES))
    tasks = [make_task(n) for n in range(FIRST_SLOTS)]
    pool.batch(tasks)

    del tasks[4]
    gc.collect()
    newcomer = make_task(60)

    assert pool.batch([newcomer]) == [4]
    pool.filled.clear()
    pool.batch(tasks)
    assert pool.filled == []


def test_a_new_task_at_the_place_of_one_that_is_gone_is_filled_anew(
    make_task: MakeTask, make_pool: MakePool
) -> None:
    """Its id may be that of a task whose weights the slot still holds."""
    pool = make_pool(PoolMemory(PLENTY))
    for number in range(20):
        task = make_task(number)
        assert pool.numbers(pool.batch([task])) == [number]
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
            pool.batch([unknown])

    assert pool.numbers(pool.batch([make_task(7)])) == [7]
    assert memory.used_bytes == SLOT_BYTES


def test_memory_is_what_the_tensors_take(make_task: MakeTask, make_pool: MakePool) -> None:
    """Two pools share one account; each starts with some slots and doubles while there is room."""
    memory = PoolMemory(PLENTY)
    pools = [make_pool(memory) for _ in range(2)]
    tasks = [make_task(n) for n in range(FIRST_SLOTS + 1)]
    assert memory.used_bytes == 0

    for pool, count in zip(pools, (1, len(tasks)), strict=True):
        pool.batch(tasks[:count])

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
    """What one needs in each batch the other has no room for: its slots go round."""
    memory = PoolMemory(FIRST_SLOTS * SLOT_BYTES)
    full, late = make_pool(memory), make_pool(memory)
    tasks = [make_task(n) for n in range(FIRST_SLOTS)]
    full.batch(tasks)

    for task in tasks[:4]:
        memory.give_slots({full: tasks, late: [task]})

    assert late.num_slots == 1
    assert len(full.filled) == FIRST_SLOTS


def test_a_pool_whose_tasks_left_memory_loses_its_tensors(
    make_task: MakeTask, make_pool: MakePool
) -> None:
    """All of them, and their memory, before another pool gives up a slot of its own."""
    memory = PoolMemory(FIRST_SLOTS * SLOT_BYTES)
    left, stays = make_pool(memory), make_pool(memory)
    tasks = [make_task(n) for n in range(FIRST_SLOTS)]
    left.batch(tasks)
    generation = left.generation
    tensors = [weakref.ref(tensor) for tensor in left._tensors.values()]
    del tasks
    gc.collect()

    others = [make_task(10 + n) for n in range(FIRST_SLOTS)]
    for start in (0, 4, 0, 4):
        stays.batch(others[start : start + 4])

    assert (left.num_slots, stays.num_slots) == (0, FIRST_SLOTS)
    assert [tensor() for tensor in tensors] == [None, None]
    assert left.generation > generation
    assert len(stays.filled) == FIRST_SLOTS
    assert memory.used_bytes == stays.tensor_bytes() == memory.limit_bytes
    assert left.numbers(left.batch([make_task(30)])) == [30]


def test_the_pool_idle_longest_goes_before_a_slot_needed_since(
    make_task: MakeTask, make_pool: MakePool
) -> None:
    """Whole, and no other one: though its tasks are in memory."""
    memory = PoolMemory(3 * FIRST_SLOTS * SLOT_BYTES)
    idle, used, growing = (make_pool(memory) for _ in range(3))
    tasks = [make_task(n) for n in range(FIRST_SLOTS + 1)]
    for pool in (used, idle, growing, used):
        pool.batch(tasks[:FIRST_SLOTS])
    assert memory.used_bytes == memory.limit_bytes

    growing.batch(tasks[FIRST_SLOTS:])

    assert [pool.num_slots for pool in (idle, used, growing)] == [0, 8, 16]
    assert len(growing.filled) == FIRST_SLOTS + 1


def test_pools_needed_in_turn_take_nothing_from_one_another(
    make_task: MakeTask, make_pool: MakePool
) -> None:
    """Where each has more tasks than slots, tasks exchange theirs and tensors stay."""
    memory = PoolMemory(2 * FIRST_SLOTS * SLOT_BYTES)
    pools = [make_pool(memory) for _ in range(2)]
    tasks = [make_task(n) for n in range(2 * FIRST_SLOTS)]
    for pool in pools:
        pool.batch(tasks[:FIRST_SLOTS])
    generations = [pool.generation for pool in pools]

    for start in (4, 8, 12, 0) * 3:
        for pool in pools:
            assert pool.numbers(pool.batch(tasks[start : start + 4])) == [*range(start, start + 4)]

    assert [pool.generation for pool in pools] == generations
    assert [pool.num_slots for pool in pools] == [FIRST_SLOTS] * 2


@pytest.mark.parametrize(("num_idle", "num_left"), [(4, 4), (3, 8)])
def test_a_pool_gives_up_what_is_idle_where_that_is_half_of_it(
    make_task: MakeTask, make_pool: MakePool, num_idle: int, num_left: int
) -> None:
    """The younger slots keep their weights, and a batch that needs them needs nothing else."""
    memory = PoolMemory(2 * FIRST_SLOTS * SLOT_BYTES)
    partly, growing = make_pool(memory), make_pool(memory)
    tasks = [make_task(n) for n in range(FIRST_SLOTS + 1)]
    partly.batch(tasks[:FIRST_SLOTS])
    growing.batch(tasks[:FIRST_SLOTS])
    in_use = tasks[num_idle:FIRST_SLOTS]
    partly.batch(in_use)

    growing.batch(tasks[FIRST_SLOTS:])

    assert partly.num_slots == num_left
    assert growing.num_slots == 2 * FIRST_SLOTS - num_left
    assert partly.numbers(partly.batch(in_use)) == [*range(num_idle, FIRST_SLOTS)]
    assert len(partly.filled) == FIRST_SLOTS


def test_free_slots_of_a_batch_are_kept_for_it(make_task: MakeTask, make_pool: MakePool) -> None:
    """The other pools of the same batch take those that nobody is about to get."""
    memory = PoolMemory(FIRST_SLOTS * SLOT_BYTES)
    first, second = make_pool(memory), make_pool(memory)
    tasks = [make_task(n) for n in range(4)]

    memory.give_slots({first: tasks, second: tasks})

    assert (first.num_slots, second.num_slots) == (4, 4)
    assert first.numbers(first.slots_of(tasks)) == second.numbers(second.slots_of(tasks))
    assert memory.used_bytes == memory.limit_bytes


def test_beyond_the_limit_is_only_what_one_batch_needs(
    make_task: MakeTask, make_pool: MakePool
) -> None:
    """Not the sum of what each pool's largest batch needed."""
    memory = PoolMemory(0)
    pools = [make_pool(memory) for _ in range(3)]
    tasks = [make_task(n) for n in range(20)]

    for many in (*pools, *pools):
        needs: dict[SlotPool, list[LoadedTask]] = {
            pool: tasks if pool is many else tasks[:1] for pool in pools
        }
        memory.give_slots(needs)

        for pool in pools:
            needed = needs[pool]
            assert pool.numbers(pool.slots_of(needed)) == [*range(len(needed))]
        assert memory.used_bytes == 22 * SLOT_BYTES


@pytest.mark.parametrize("limit_slots", [0, 10, 25])
def test_whatever_comes_weights_are_right_and_memory_is_bounded(
    make_task: MakeTask, make_pool: MakePool, limit_slots: int
) -> None:
    """By the limit, or by what the largest batch needed by itself; tasks come and go."""
    random = np.random.default_rng(limit_slots)
    memory = PoolMemory(limit_slots * SLOT_BYTES)
    pools = [make_pool(memory, width) for width in (WIDTH, 2 * WIDTH, 5 * WIDTH)]
    tasks = {n: make_task(n) for n in range(30)}
    largest = 0
    for _ in range(300):
        if random.random() < 0.3:
            tasks[int(random.integers(30))] = make_task(int(random.integers(30, 100)))
        needs: dict[SlotPool, list[LoadedTask]] = {}
        for pool in pools:
            if random.random() < 0.6:
                chosen = random.choice(30, size=int(random.integers(1, 9)), replace=False)
                needs[pool] = [tasks[int(n)] for n in chosen]

        memory.give_slots(needs)

        for pool in pools:
            named = [int(task.description.name.split("-")[-1]) for task in needs.get(pool, ())]
            assert pool.numbers(pool.slots_of(needs.get(pool, ()))) == named
        largest = max(largest, sum(len(of) * pool.slot_bytes for pool, of in needs.items()))
        assert memory.used_bytes == sum(pool.tensor_bytes() for pool in pools)
        assert memory.used_bytes <= max(memory.limit_bytes, largest)


def test_other_pools_make_room_on_a_device_that_has_less_than_the_limit(
    make_task: MakeTask, make_pool: MakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a batch that can take no slot of its own pool."""
    memory = PoolMemory(PLENTY)
    idle, growing = make_pool(memory), make_pool(memory)
    tasks = [make_task(n) for n in range(4)]
    idle.batch(tasks)
    grow = SlotPool.grow

    def used_up_beside_another(pool: SlotPool, num_slots: int) -> None:
        if memory.used_bytes + num_slots * SLOT_BYTES > FIRST_SLOTS * SLOT_BYTES:
            raise torch.OutOfMemoryError
        grow(pool, num_slots)

    monkeypatch.setattr(SlotPool, "grow", used_up_beside_another)

    assert growing.numbers(growing.batch(tasks)) == [0, 1, 2, 3]
    assert memory.used_bytes <= memory.limit_bytes == FIRST_SLOTS * SLOT_BYTES


def test_a_pool_grows_by_what_there_is_room_for(make_task: MakeTask, make_pool: MakePool) -> None:
    """Before anybody gives a slot up."""
    pool = make_pool(PoolMemory((FIRST_SLOTS + 2) * SLOT_BYTES))
    tasks = [make_task(n) for n in range(FIRST_SLOTS + 2)]
    pool.batch(tasks[:FIRST_SLOTS])

    assert pool.numbers(pool.batch(tasks[FIRST_SLOTS:])) == [FIRST_SLOTS, FIRST_SLOTS + 1]
    assert pool.num_slots == FIRST_SLOTS + 2
    pool.filled.clear()
    pool.batch(tasks)
    assert pool.filled == []


def test_a_device_that_has_less_than_the_limit_sets_it(
    make_task: MakeTask, make_pool: MakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Growth that fails midway leaves all tensors as they were, and slots go from task to task."""
    memory = PoolMemory(PLENTY)
    pool = make_pool(memory)
    tasks = [make_task(n) for n in range(FIRST_SLOTS + 1)]
    pool.batch(tasks[:FIRST_SLOTS])
    new_empty, allocations = torch.Tensor.new_empty, 0

    def used_up_at_the_second(tensor: torch.Tensor, *size: object) -> torch.Tensor:
        nonlocal allocations
        allocations += 1
        if allocations == 2:
            raise torch.OutOfMemoryError
        return new_empty(tensor, *size)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(torch.Tensor, "new_empty", used_up_at_the_second)
    found = pool.batch(tasks[FIRST_SLOTS:])

    assert pool.numbers(found) == [FIRST_SLOTS]
    assert {len(pool.at(0, name)) for name in ("values", "count")} == {FIRST_SLOTS}
    assert memory.limit_bytes == memory.used_bytes == FIRST_SLOTS * SLOT_BYTES
    assert pool.numbers(pool.batch(tasks[1:5])) == [1, 2, 3, 4]


def test_a_pool_that_cannot_be_copied_goes_whole_or_stays(
    make_task: MakeTask, make_pool: MakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To be cut takes memory for what is left: on a device without it no batch fails of that."""
    memory = PoolMemory(2 * FIRST_SLOTS * SLOT_BYTES)
    idle, partly, growing = (make_pool(memory) for _ in range(3))
    tasks = [make_task(n) for n in range(FIRST_SLOTS + 1)]
    for pool in (partly, growing):
        pool.batch(tasks[:FIRST_SLOTS])
    partly.batch(tasks[:1])
    new_empty = torch.Tensor.new_empty

    def used_up(tensor: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
        if size[1] and memory.used_bytes:
            raise torch.OutOfMemoryError
        return new_empty(tensor, size)

    monkeypatch.setattr(torch.Tensor, "new_empty", used_up)

    assert growing.numbers(growing.batch(tasks[FIRST_SLOTS:])) == [FIRST_SLOTS]
    assert partly.numbers(partly.batch(tasks[:FIRST_SLOTS])) == [*range(FIRST_SLOTS)]
    assert growing.num_slots == partly.num_slots == len(partly.filled) == FIRST_SLOTS
    assert idle.numbers(idle.batch(tasks[:2])) == [0, 1]
    assert growing.num_slots == partly.num_slots == 0


def test_a_batch_that_a_device_has_no_memory_for_fails(
    make_task: MakeTask, make_pool: MakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the device's own error: a part of the batch may fit."""
    pool = make_pool(PoolMemory(PLENTY))

    def used_up(*_: object) -> torch.Tensor:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(torch.Tensor, "new_empty", used_up)

    with pytest.raises(torch.OutOfMemoryError):
        pool.batch([make_task(1)])
