"""Pools of real tasks: right answers whatever they displace, and memory as counted."""

import gc
from collections.abc import Iterator, Sequence

import pytest
import torch

from petstream.benchmarks.dense_task import DenseTask
from tasks.pets.adapter import Adapter
from tasks.pets.lora import Lora
from tests.workers.grouped.ways import (
    distance,
    grouped_encoder,
    on_device_engine,
    task_with,
    token_ids,
)
from tests.workers.pets import PAPERS_PETS, random_task
from workers.backbone import PRODUCTS
from workers.engine import Engine, EngineRow
from workers.grouped.on_device import OnDevice
from workers.grouped.slot_pool import FIRST_SLOTS, SlotPool
from workers.grouped.task_pools import TaskPools
from workers.loaded_task import LoadedTask
from workers.power_of_two import power_of_two

CPU = torch.device("cpu")
TOLERANCE = 2e-5
LIMIT_BYTES = 16 << 20


@pytest.fixture
def cramped(small_engine: Engine) -> Iterator[Engine]:
    """An engine whose pools may take nothing: each has as many slots as the largest batch."""
    engine = on_device_engine(small_engine.backbone, OnDevice(CPU, pool_bytes=0), ("float32",))
    yield engine
    engine.close()


@pytest.fixture
def roomy(small_engine: Engine) -> Iterator[Engine]:
    """An engine with room for all tasks."""
    engine = on_device_engine(small_engine.backbone, OnDevice(CPU), ("float32",))
    yield engine
    engine.close()


def all_pools(pools: TaskPools) -> list[SlotPool]:
    """Return every pool there is."""
    by_key = (pools._low_ranks, pools._adapters, pools._sparse, pools._masks)
    return [pools.vectors, pools.scales, *(pool for of in by_key for pool in of.values())]


def check(
    engine: Engine, small_engine: Engine, batch: Sequence[tuple[DenseTask, LoadedTask]]
) -> None:
    """Run a row of each task and compare it with the CPU engine's."""
    ids = token_ids(len(batch), 11)
    found = engine.run([EngineRow(loaded, ids) for _, loaded in batch])
    expected = small_engine.run([EngineRow(task.load(small_engine), ids) for task, _ in batch])
    assert max(map(distance, found, expected)) < TOLERANCE


@pytest.mark.parametrize("variant", [*PAPERS_PETS, "compacter", "dora"])
def test_answers_stay_right_with_more_tasks_than_slots(
    small_engine: Engine, cramped: Engine, variant: str
) -> None:
    """Batches of one kind in changing order, each of which displaces tasks of the last one."""
    shape = small_engine.backbone.shape
    tasks = [random_task(variant, shape, seed=seed) for seed in range(5)]
    loaded = [(task, task.load(cramped)) for task in tasks]

    for batch in ([0, 1], [2, 0], [4, 3], [1, 2], [0, 4], [4], [3, 0]):
        check(cramped, small_engine, [loaded[number] for number in batch])

    pools = all_pools(grouped_encoder(cramped).pools)
    assert {pool.num_slots for pool in pools} <= {0, 2}
    assert any(pool.num_slots for pool in pools)


def test_kinds_in_turn_leave_each_others_slots_alone(small_engine: Engine, cramped: Engine) -> None:
    """Several kinds share the pool of vectors, others have pools of their own."""
    shape = small_engine.backbone.shape
    loaded = {
        variant: [
            (task, task.load(cramped))
            for task in (random_task(variant, shape, seed=seed) for seed in range(2))
        ]
        for variant in ("bitfit", "houlsby", "diff", "lora", "mask", "ia3", "dora")
    }
    for first, second in zip(loaded, [*loaded][1:] + [*loaded][:1], strict=True):
        check(cramped, small_engine, [loaded[second][1], loaded[first][0], loaded[second][0]])


def test_a_narrower_task_in_the_slot_of_a_wider_one_has_nothing_of_it(
    small_engine: Engine, cramped: Engine
) -> None:
    """What it does not write itself is zero, not what was there."""
    for wide, narrow in (
        (Lora(rank=8, alpha=8.0), Lora(rank=3, alpha=3.0, sites=("query",))),
        (
            Adapter(placement="houlsby", bottleneck=32, activation="relu"),
            Adapter(placement="houlsby", bottleneck=20, activation="gelu", leave_out=(1,)),
        ),
    ):
        for seed, pet in enumerate((wide, narrow)):
            task = task_with(pet, small_engine.backbone.shape, seed)
            check(cramped, small_engine, [(task, task.load(cramped))])


def test_ranks_and_bottlenecks_of_many_sizes_in_one_batch(
    small_engine: Engine, roomy: Engine
) -> None:
    """Each size has a pool, those near each other one together."""
    pets: list[Lora | Adapter] = [
        *(Lora(rank=rank, alpha=float(rank)) for rank in (1, 3, 8, 9, 17, 32)),
        *(Adapter(placement="houlsby", bottleneck=n, activation="gelu") for n in (3, 70)),
        *(Adapter(placement="houlsby", bottleneck=n, activation="relu") for n in (16, 17)),
    ]
    tasks = [task_with(pet, small_engine.backbone.shape, seed) for seed, pet in enumerate(pets)]

    check(roomy, small_engine, [(task, task.load(roomy)) for task in tasks])

    pools = grouped_encoder(roomy).pools
    assert {rank for _, rank in pools._low_ranks} == {8, 16, 32}
    assert {bottleneck for _, bottleneck in pools._adapters} == {16, 32, 128}


def test_memory_is_what_the_tensors_of_all_pools_take(small_engine: Engine, roomy: Engine) -> None:
    """Of every kind and size."""
    shape = small_engine.backbone.shape
    pools = grouped_encoder(roomy).pools
    assert pools.memory.used_bytes == 0
    tasks = [random_task(v, shape).load(roomy) for v in (*PAPERS_PETS, "compacter")]

    roomy.run([EngineRow(task, token_ids(1, 5)) for task in tasks])

    taken = sum(tensor.nbytes for pool in all_pools(pools) for tensor in pool._tensors.values())
    assert pools.memory.used_bytes == taken > 0


def test_pools_stay_within_their_limit(small_engine: Engine) -> None:
    """While no batch alone needs more."""
    shape = small_engine.backbone.shape
    tasks = [random_task("lora", shape, seed=seed) for seed in range(3 * FIRST_SLOTS)]
    rank, layers, hidden, inner = 8, shape.num_layers, shape.hidden_size, shape.intermediate_size
    values = 6 * hidden + 2 * hidden + 2 * (hidden + inner)
    limit_bytes = 2 * FIRST_SLOTS * layers * rank * values * 4
    engine = on_device_engine(
        small_engine.backbone, OnDevice(CPU, pool_bytes=limit_bytes), ("float32",)
    )
    pools = grouped_encoder(engine).pools
    loaded = [(task, task.load(engine)) for task in tasks]

    for start in (0, FIRST_SLOTS, 2 * FIRST_SLOTS, 0):
        check(engine, small_engine, loaded[start : start + FIRST_SLOTS])

    assert pools.memory.used_bytes == limit_bytes
    assert {pool.num_slots for pool in pools._low_ranks.values()} == {2 * FIRST_SLOTS}
    engine.close()


def test_tasks_that_leave_memory_make_room_for_other_kinds(
    small_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pools of a kind that is gone are given back, so that no batch fills a slot a second time."""
    shape = small_engine.backbone.shape
    how = OnDevice(CPU, pool_bytes=LIMIT_BYTES)
    engine = on_device_engine(small_engine.backbone, how, ("float32",))
    pools = grouped_encoder(engine).pools
    gone = [random_task("lora", shape, seed=seed).load(engine) for seed in range(4 * FIRST_SLOTS)]
    for start in range(0, len(gone), 4):
        engine.run([EngineRow(task, token_ids(1, 5)) for task in gone[start : start + 4]])
    del gone
    gc.collect()
    assert pools.memory.used_bytes > LIMIT_BYTES - max(pool.slot_bytes for pool in all_pools(pools))
    tasks = [random_task("houlsby", shape, seed=seed) for seed in range(FIRST_SLOTS)]
    loaded = [(task, task.load(engine)) for task in tasks]
    filled: list[int] = []
    fill = SlotPool.fill

    def noted(pool: SlotPool, of: Sequence[LoadedTask], batch: int) -> None:
        filled.extend(id(task) for task in of if id(task) not in pool._slots)
        fill(pool, of, batch)

    monkeypatch.setattr(SlotPool, "fill", noted)
    for start in [*range(0, FIRST_SLOTS, 2)] * 2:
        check(engine, small_engine, loaded[start : start + 2])

    num_pools = sum(pool.num_slots > 0 for pool in all_pools(pools) if pool._slots)
    assert len(filled) == FIRST_SLOTS * num_pools > 0
    assert pools.memory.used_bytes <= LIMIT_BYTES
    engine.close()


def test_memory_beyond_the_limit_is_what_one_batch_needs(small_engine: Engine) -> None:
    """Ranks that came one after another leave nothing behind."""
    shape = small_engine.backbone.shape
    engine = on_device_engine(small_engine.backbone, OnDevice(CPU, pool_bytes=0), ("float32",))
    pools = grouped_encoder(engine).pools
    for rank in (1, 9, 17, 33):
        pet = Lora(rank=rank, alpha=8.0)
        loaded = [task_with(pet, shape, seed).load(engine) for seed in range(3)]
        engine.run([EngineRow(task, token_ids(1, 5)) for task in loaded])

        held = [pool for pool in all_pools(pools) if pool.num_slots]
        assert {pool.num_slots for pool in held} == {3}
        assert pools.memory.used_bytes == sum(
            tensor.nbytes for pool in held for tensor in pool._tensors.values()
        )
        assert set(held) <= {pools.low_rank(p, power_of_two(rank, 8)) for p in PRODUCTS}
    engine.close()


def test_tasks_that_leave_memory_make_room(small_engine: Engine, roomy: Engine) -> None:
    """Their slots go to those that come, and no pool grows."""
    shape = small_engine.backbone.shape
    for seed in range(2 * FIRST_SLOTS):
        task = random_task("bitfit", shape, seed=seed)
        check(roomy, small_engine, [(task, task.load(roomy))])
        gc.collect()

    pools = grouped_encoder(roomy).pools
    assert pools.vectors.num_slots == FIRST_SLOTS
    assert len(pools.vectors._slots) == 1
    assert len(pools._forms) == 0
