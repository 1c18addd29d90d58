"""Passes captured once and replayed: other batches, and nothing of the ones before in them."""

import weakref
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gpu_ops.grouped import ragged_head
from tests.workers.grouped.ways import (
    Way,
    cuda,
    distance,
    grouped_encoder,
    on_device_engine,
    token_ids,
)
from tests.workers.pets import random_task
from workers.engine import Engine, EngineRow
from workers.grouped.on_device import OnDevice
from workers.grouped.pass_sizes import PassSizes, pass_sizes
from workers.packed_batch import execution_order, pack
from workers.row_outputs import row_outputs

KINDS = ("lora", "houlsby", "ia3", "mask", "diff", "bitfit")
MAX_ROUNDING = 0.06
"""Of the standard deviation of the float32 logits."""


class CountedCalls(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """How many operators torch was asked for."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.number = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        self.number += 1
        return func(*args, **(kwargs or {}))


def replays(engine: Engine) -> int:
    """Return how many passes were replayed so far, in bfloat16."""
    return grouped_encoder(engine, "bfloat16").graphs.num_replays


def test_batches_of_the_same_sizes_and_operators_are_one_graph(
    way: Way, small_engine: Engine
) -> None:
    """Other tasks, with other rows: from the second batch on it is replayed."""
    shape = small_engine.backbone.shape
    # Sparse changes are launched by how many there are: those of one seed are as many.
    dense = [
        [random_task(kind, shape, seed=1 if kind == "diff" else seed) for kind in KINDS]
        for seed in (1, 2)
    ]
    tasks = [[way.load(task, "bfloat16") for task in of] for of in dense]
    expected_tasks = [[task.load(small_engine) for task in of] for of in dense]
    lengths = [(17, 40, 33, 9, 5, 20), (18, 39, 34, 9, 5, 19), (17, 41, 31, 10, 6, 19)]
    # Each has its slots before anything is captured.
    way.engine.run([EngineRow(task, token_ids(1, 7)) for of in tasks for task in of])
    before = replays(way.engine)

    for number, lens in enumerate(lengths * 2):
        own, others = tasks[number % 2], expected_tasks[number % 2]
        ids = [token_ids(100 * number + length, length) for length in lens]
        found = way.engine.run([EngineRow(t, row) for t, row in zip(own, ids, strict=True)])
        expected = small_engine.run([EngineRow(t, row) for t, row in zip(others, ids, strict=True)])
        for one, other in zip(found, expected, strict=True):
            assert 0 < distance(one, other) < MAX_ROUNDING * other.std()

    assert replays(way.engine) - before == (5 if way.how.unit == "grouped" else 0)


def test_a_short_batch_behind_a_long_one(way: Way, small_engine: Engine) -> None:
    """What the long one left behind the short one's tokens is read by nobody."""
    task = random_task("houlsby", small_engine.backbone.shape, seed=3)
    loaded, expected_task = way.load(task, "bfloat16"), task.load(small_engine)
    for lens in ([60, 3], [60, 3], [60, 3], [33, 2, 1]):
        ids = [token_ids(length, length) for length in lens]
        found = way.engine.run([EngineRow(loaded, row) for row in ids])
        expected = small_engine.run([EngineRow(expected_task, row) for row in ids])

        limit = MAX_ROUNDING * np.concatenate(expected).std()
        assert max(map(distance, found, expected)) < limit


def test_what_the_host_decides_while_it_runs_is_not_captured(
    way: Way, small_engine: Engine
) -> None:
    """Prefixes, and what torch runs task by task."""
    before = replays(way.engine)
    for variant in ("prefix", "dora"):
        task = random_task(variant, small_engine.backbone.shape)
        loaded, expected_task = way.load(task, "bfloat16"), task.load(small_engine)
        ids = token_ids(5, 12)
        for _ in range(3):
            (found,) = way.engine.run([EngineRow(loaded, ids)])

        (expected,) = small_engine.run([EngineRow(expected_task, ids)])
        assert distance(found, expected) < MAX_ROUNDING * expected.std()
    assert replays(way.engine) == before


@pytest.mark.parametrize(("max_graphs", "expected"), [(0, 0), (1, 0), (2, 5)])
def test_graphs_are_dropped_for_others(
    small_engine: Engine, max_graphs: int, expected: int
) -> None:
    """The one used longest ago first; and nothing is captured where none may be."""
    how = OnDevice(torch.device("cpu"), max_graphs=max_graphs)
    engine = on_device_engine(small_engine.backbone, how, ("bfloat16",))
    task = random_task("bitfit", small_engine.backbone.shape).load(engine)

    # What enters is kept in one place, which the first long batch makes a larger one: then the
    # short batch's graph is another.
    for _ in range(4):
        for length in (20, 200):
            engine.run([EngineRow(task, token_ids(1, length))])

    assert replays(engine) == expected
    engine.close()


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_no_graph_of_tensors_that_were_given_up_is_replayed(
    small_engine: Engine, device: str
) -> None:
    """Nor does one hold their memory: another kind takes it, and the first one is right again."""
    how = OnDevice(cuda() if device == "cuda" else torch.device(device), pool_bytes=0)
    way = Way(on_device_engine(small_engine.backbone, how, ("bfloat16",)), how, 0.0)
    shape = small_engine.backbone.shape
    tasks = [random_task(variant, shape, seed=5) for variant in ("lora", "houlsby")]
    loaded = [way.load(task, "bfloat16") for task in tasks]
    ids = token_ids(3, 12)
    pools = grouped_encoder(way.engine, "bfloat16").pools
    held: list[weakref.ref[torch.Tensor]] = []
    for task, on_device in zip(tasks * 2, loaded * 2, strict=True):
        (expected,) = small_engine.run([EngineRow(task.load(small_engine), ids)])
        before = replays(way.engine)

        answers = [way.engine.run([EngineRow(on_device, ids)])[0] for _ in range(3)]

        assert max(distance(found, expected) for found in answers) < MAX_ROUNDING * expected.std()
        assert replays(way.engine) - before == 2
        assert all(tensor() is None for tensor in held)
        taken = [pool for pool in pools.memory._pools if pool.num_slots]
        assert {pool.num_slots for pool in taken} == {1}
        held = [weakref.ref(tensor) for pool in taken for tensor in pool._tensors.values()]
    way.engine.close()


def test_many_tasks_take_no_more_calls_of_torch_than_few(
    small_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is a launch, or a copy, that the host makes beside the one of the captured pass."""
    how = OnDevice(torch.device("cpu"))
    engine = on_device_engine(small_engine.backbone, how, ("bfloat16",))
    encoder, shape = grouped_encoder(engine, "bfloat16"), engine.backbone.shape
    tasks = [random_task(kind, shape, seed=n).load(engine) for n in range(3) for kind in KINDS]
    rows = [EngineRow(task, token_ids(1, 9)) for task in tasks]
    engine.run(rows)
    monkeypatch.setattr(encoder.graphs, "_run", lambda pass_: pass_.hidden)
    monkeypatch.setattr(
        ragged_head, "ragged_head", lambda vectors, *_: vectors.new_zeros(len(vectors), 9)
    )

    def calls_and_replays(num_tasks: int) -> tuple[int, int]:
        before = encoder.graphs.num_replays
        order = execution_order(rows[:num_tasks])
        batch = pack(rows, order, shape, engine.backbone.num_token_types)
        with torch.inference_mode(), CountedCalls() as counted:
            row_outputs(encoder.encode(batch), encoder.head)
        return counted.number, encoder.graphs.num_replays - before

    few, many = (
        [calls_and_replays(number) for _ in range(3)][-1] for number in (len(KINDS), len(tasks))
    )
    assert few == many == (few[0], 1)
    assert few[0] < 32
    engine.close()


@pytest.mark.parametrize(
    ("row_lens", "num_tokens", "expected"),
    [
        pytest.param([1], 16, (64, 8, 16), id="the least"),
        pytest.param([64] * 64, 4096, (4096, 64, 64), id="just so"),
        pytest.param([64] * 64 + [1], 4112, (4608, 128, 64), id="a row more"),
        pytest.param([511, 2], 528, (576, 8, 512), id="steps of an eighth"),
    ],
)
def test_sizes(row_lens: Sequence[int], num_tokens: int, expected: PassSizes) -> None:
    """Few sizes, none much larger than the batch."""
    assert pass_sizes(row_lens, num_tokens) == expected
