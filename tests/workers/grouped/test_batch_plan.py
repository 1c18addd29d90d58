"""What a batch runs behind each product: in which order, on which stream, on which rows."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch

from gpu_ops.grouped.low_rank import low_rank_shared_bytes
from gpu_ops.grouped.operator_schedule import Work, intensity
from tasks.pets.adapter import Adapter
from tasks.pets.combined import Combined
from tasks.pets.lora import Lora
from tasks.pets.mask import Mask
from tests.workers.grouped.ways import distance, on_device_engine, task_with, token_ids
from tests.workers.pets import random_task
from workers.backbone import PRODUCTS, Product
from workers.device_choice import OperatorUnit
from workers.engine import Engine, EngineRow
from workers.grouped import placed_operators
from workers.grouped.batch_plan import BatchPlan, plan_batch
from workers.grouped.device_backbone import DeviceBackbone
from workers.grouped.on_device import OnDevice
from workers.grouped.task_pools import TaskPools
from workers.loaded_task import LoadedTask
from workers.packed_batch import execution_order, pack

CPU = torch.device("cpu")
NUM_TOKENS = 6
"""Of each row."""


def plan_of(
    engine: Engine,
    tasks: Sequence[LoadedTask],
    *,
    unit: OperatorUnit = "grouped",
    num_streams: int = 1,
    pools: TaskPools | None = None,
    block_bytes: int | None = None,
) -> BatchPlan:
    """Plan a batch of a row of each task, by default with pools of its own."""
    backbone = engine.backbone
    rows = [EngineRow(task, token_ids(1, NUM_TOKENS)) for task in tasks]
    batch = pack(rows, execution_order(rows), backbone.shape, backbone.num_token_types)
    shared = replace(DeviceBackbone.of(backbone, CPU, torch.float32), block_bytes=block_bytes)
    if pools is None:
        pools = TaskPools(backbone, shared, limit_bytes=0)
    plan = plan_batch(batch, pools, shared, OnDevice(CPU, unit=unit, num_streams=num_streams))
    plan.tables.upload()
    return plan


def load(engine: Engine, *variants: str) -> list[LoadedTask]:
    """Return a task of each variant."""
    shape = engine.backbone.shape
    return [random_task(v, shape, seed=n).load(engine) for n, v in enumerate(variants)]


def numbers(plan: BatchPlan, product: Product) -> list[int]:
    """Return how many operators each stream has behind a product."""
    return [len(stream) for stream in plan.changes[product]]


@pytest.mark.parametrize(("spare_bytes", "tile_rows"), [(0, 16), (-1, 64)])
def test_ranks_that_small_tiles_have_no_memory_for_go_by_large_ones(
    small_engine: Engine, spare_bytes: int, tile_rows: int
) -> None:
    """Of a device that gives a block too little, by a byte."""
    plan = plan_of(
        small_engine,
        load(small_engine, "lora"),
        block_bytes=low_rank_shared_bytes(8, torch.float32) + spare_bytes,
    )

    launches = [one.launches for of in plan.changes.values() for stream in of for one in stream]

    assert launches
    for launched in launches:
        assert isinstance(launched, tuple)
        assert launched[0] == "low_rank"
        assert launched[3] == tile_rows


def test_operators_whose_rows_do_not_meet_are_dealt_over_streams(small_engine: Engine) -> None:
    """One for each kind of op, or for each task; the most intense ones first."""
    tasks = load(small_engine, "mask", "mask", "houlsby", "lora", "diff", "bitfit")

    grouped = plan_of(small_engine, tasks, num_streams=2)
    per_task = plan_of(small_engine, tasks, unit="per-task", num_streams=3)

    assert numbers(grouped, "attention_output") == [2, 2]
    assert numbers(per_task, "attention_output") == [2, 2, 1]
    assert numbers(grouped, "qkv") == [2, 1]
    for plan in (grouped, per_task):
        for streams in plan.changes.values():
            found = [intensity(one.work()) for stream in streams for one in stream]
            assert found == sorted(found, reverse=True)


def test_a_product_that_no_task_changes_has_no_operators(small_engine: Engine) -> None:
    """The shared product is all there is."""
    plan = plan_of(small_engine, load(small_engine, "houlsby", "bitfit", "ia3"))

    assert set(plan.changes) == {"attention_output", "ffn_output"}
    assert not plan.looped
    assert not plan.all_masked


EVERYTHING = (
    Mask(),
    Lora(rank=4, alpha=8.0, sites=("query", "ffn_output")),
    Adapter(placement="houlsby", bottleneck=20, activation="gelu", own_norms=False),
)


def test_operators_of_one_task_run_in_turn(small_engine: Engine) -> None:
    """As one, however many streams there are: its mask, its low rank, its adapter."""
    shape = small_engine.backbone.shape
    task = task_with(Combined(parts=EVERYTHING), shape).load(small_engine)
    parts = [task_with(part, shape, n).load(small_engine) for n, part in enumerate(EVERYTHING)]

    (chain,), () = plan_of(small_engine, [task], num_streams=2).changes["ffn_output"]

    alone = [plan_of(small_engine, [part]).changes["ffn_output"][0][0].work() for part in parts]
    assert chain.work() == alone[0] + alone[1] + alone[2]


def test_work_is_counted_only_where_it_is_dealt_by(
    small_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one stream there is nothing to deal, and the host is what a batch waits for."""
    counted = []
    for name in ("masked_product", "sparse_delta", "low_rank", "bottleneck"):
        count = getattr(placed_operators, f"{name}_work")

        def noted(*args: object, name: str = name, count: Callable[..., Work] = count) -> Work:
            counted.append(name)
            return count(*args)

        monkeypatch.setattr(placed_operators, f"{name}_work", noted)
    tasks = load(small_engine, "mask", "houlsby", "lora", "diff")

    plan_of(small_engine, tasks)
    assert counted == []

    plan_of(small_engine, tasks, num_streams=2)
    assert set(counted) == {"masked_product", "sparse_delta", "low_rank", "bottleneck"}


def test_what_a_batch_does_not_need_changes_nothing_of_its_launches(small_engine: Engine) -> None:
    """Which graph it is does not go by pools of scales that came or went meanwhile."""
    shared = DeviceBackbone.of(small_engine.backbone, CPU, torch.float32)
    pools = TaskPools(small_engine.backbone, shared, limit_bytes=1 << 30)
    lora, ia3 = load(small_engine, "lora", "ia3")
    before = plan_of(small_engine, [lora], pools=pools).launches

    plan_of(small_engine, [ia3], pools=pools)

    assert pools.scales.generation > 0
    assert plan_of(small_engine, [lora], pools=pools).launches == before


@pytest.mark.parametrize("order", [EVERYTHING, EVERYTHING[::-1]], ids=["in order", "reversed"])
@pytest.mark.parametrize("num_streams", [1, 2])
def test_operators_of_one_task_run_in_their_order(
    small_engine: Engine, num_streams: int, order: tuple[Mask | Lora | Adapter, ...]
) -> None:
    """A mask replaces the product, an adapter reads all that was added to it."""
    how = OnDevice(CPU, unit="per-task", num_streams=num_streams)
    engine = on_device_engine(small_engine.backbone, how, ("float32",))
    shape = small_engine.backbone.shape
    parts = [task_with(part, shape, n) for n, part in enumerate(EVERYTHING)]
    tasks = [task_with(Combined(parts=order), shape, 9), *parts]
    ids = token_ids(2, 9)

    found = engine.run([EngineRow(task.load(engine), ids) for task in tasks])

    expected = small_engine.run([EngineRow(task.load(small_engine), ids) for task in tasks])
    assert max(map(distance, found, expected)) < 2e-5
    engine.close()


def test_operators_that_meet_through_a_third_are_one(small_engine: Engine) -> None:
    """A grouped low rank has rows of two tasks, and each of them has another operator."""
    shape = small_engine.backbone.shape
    mask, lora, adapter = EVERYTHING
    tasks = [
        task_with(Combined(parts=parts), shape, n).load(small_engine)
        for n, parts in enumerate(((mask, lora), (lora, adapter)))
    ]

    grouped = plan_of(small_engine, tasks, num_streams=3)
    per_task = plan_of(small_engine, tasks, unit="per-task", num_streams=3)

    assert numbers(grouped, "ffn_output") == [1, 0, 0]
    assert numbers(per_task, "ffn_output") == [1, 1, 0]


def test_the_shared_product_is_left_out_where_all_rows_are_masked(small_engine: Engine) -> None:
    """And only there: one row that is not is enough."""
    masks = load(small_engine, "mask", "mask")
    at_qkv = {place: own for place, own in masks[0].ops.products.items() if place[1] == "qkv"}
    some = replace(masks[0], ops=replace(masks[0].ops, products=at_qkv))

    assert plan_of(small_engine, masks).all_masked == set(PRODUCTS)
    assert plan_of(small_engine, [*masks, some]).all_masked == {"qkv"}
    assert not plan_of(small_engine, [*masks, *load(small_engine, "bitfit")]).all_masked


def test_rows_know_the_slots_of_their_tasks(small_engine: Engine) -> None:
    """Those without vectors or scales of their own, and padding, have none."""
    plan = plan_of(small_engine, load(small_engine, "lora", "bitfit", "ia3", "diff"))

    slots = plan.vector_slots.tolist()
    of_rows = [set(slots[n * NUM_TOKENS : (n + 1) * NUM_TOKENS]) for n in range(4)]
    assert len(slots) == 32
    assert sorted(map(sorted, of_rows)) == [[-1], [-1], [0], [1]]
    assert set(slots[4 * NUM_TOKENS :]) == {-1}
    assert plan.scale_slots is not None
    assert plan.scale_slots.add(1).bincount().tolist() == [32 - NUM_TOKENS, NUM_TOKENS]


def test_without_scaling_tasks_nothing_is_scaled(small_engine: Engine) -> None:
    """The epilogue that scales reads more."""
    assert plan_of(small_engine, load(small_engine, "lora", "bitfit")).scale_slots is None
