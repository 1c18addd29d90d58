"""Host memory and a device's: what is where, what comes up, what goes down, each in its budget.

The CPU stands for the device where there is none: its copies are real copies.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gpu_ops.ragged_head import HeadWeights, HiddenWeights
from messages.task_event import TaskReference
from tests.workers.pets import PETS, random_task
from tests.workers.stored_tasks import (
    PLENTY,
    WatchedStore,
    acquire,
    add_task,
    reads_of,
    task_bytes,
    use,
)
from workers.backbone import LinearWeights
from workers.device_copies import DeviceCopies
from workers.engine import Engine, EngineRow
from workers.errors import TaskMemoryError
from workers.loaded_task import LoadedTask
from workers.task_manager import DeviceMemory, TaskManager

CPU = torch.device("cpu")
NAMES = ("a", "bb", "ccc", "dddd")

MakeManager = Callable[..., TaskManager]


@pytest.fixture
def store(tmp_path: Path) -> WatchedStore:
    """An empty task store."""
    return WatchedStore(tmp_path / "tasks")


@pytest.fixture
def make_manager(store: WatchedStore, small_engine: Engine) -> Iterator[MakeManager]:
    """Return what makes managers with a device; their budgets are in bytes."""
    made: list[TaskManager] = []

    def make(host: int, device: int, on: torch.device = CPU) -> TaskManager:
        memory = DeviceMemory(on, device)
        made.append(
            TaskManager(store, small_engine, level=0, memory_limit_bytes=host, device=memory)
        )
        return made[-1]

    yield make
    for manager in made:
        manager.close()


def four_tasks(store: WatchedStore, engine: Engine) -> tuple[list[TaskReference], int]:
    """Return tasks of one size, and that size."""
    references = [add_task(store, engine, name) for name in NAMES]
    return references, task_bytes(store, engine, references[0])


def tensors(part: object) -> Iterator[torch.Tensor]:
    """Yield every tensor of a task's weights."""
    if isinstance(part, torch.Tensor):
        yield part
    elif is_dataclass(part):
        for field in fields(part):
            yield from tensors(getattr(part, field.name))
    elif isinstance(part, dict):
        for value in part.values():
            yield from tensors(value)
    elif isinstance(part, tuple):
        for value in part:
            yield from tensors(value)


@pytest.mark.parametrize("variant", PETS)
@pytest.mark.parametrize("on", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_the_copy_on_the_device_is_the_task(
    store: WatchedStore, make_manager: MakeManager, small_engine: Engine, variant: str, on: str
) -> None:
    """Of every kind: equal tensors, none of them the host's, and with them the device's alone."""
    reference = add_task(store, small_engine, "weather", variant)
    host = TaskManager(store, small_engine, level=0, memory_limit_bytes=PLENTY)
    manager = make_manager(PLENTY, PLENTY, cuda() if on == "cuda" else CPU)

    with acquire(host, reference) as laid_out, acquire(manager, reference) as copied:
        pairs = list(zip(tensors(laid_out.ops), tensors(copied.ops), strict=True))
        assert pairs
        for one, other in pairs:
            assert other.device.type == on
            assert other.dtype == one.dtype
            assert torch.equal(one, other.cpu())
            assert one.data_ptr() != other.data_ptr()
        assert copied.num_bytes == laid_out.num_bytes
    host.close()


def test_a_copy_on_the_device_runs(
    store: WatchedStore, make_manager: MakeManager, small_engine: Engine
) -> None:
    """With the logits of the task as it was laid out."""
    reference = add_task(store, small_engine, "weather", "diff")
    host = TaskManager(store, small_engine, level=0, memory_limit_bytes=PLENTY)
    ids = np.array([101, 2054, 102])

    def logits(task: LoadedTask) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return small_engine.run([EngineRow(task, ids)])[0]

    with (
        acquire(host, reference) as laid_out,
        acquire(make_manager(PLENTY, PLENTY), reference) as it,
    ):
        assert np.array_equal(logits(laid_out), logits(it))
    host.close()


def test_what_tasks_share_with_the_backbone_is_on_the_device_once(small_engine: Engine) -> None:
    """A head may read the backbone's pooler: the same in the host's memory and on the device."""
    width = small_engine.backbone.shape.hidden_size
    pooler = LinearWeights(torch.zeros(width, width), torch.zeros(width))
    random = random_task("bitfit", small_engine.backbone.shape).load(small_engine)
    hidden = HiddenWeights(pooler.weight, pooler.bias, "tanh")
    head = HeadWeights(random.ops.head.weight, random.ops.head.bias, hidden)
    task = replace(random, ops=replace(random.ops, head=head))
    copies = DeviceCopies(replace(small_engine.backbone, pooler=pooler), CPU)

    a, b = (copies.of(task).ops.head for _ in range(2))

    assert a.hidden is not None
    assert b.hidden is not None
    assert a.weight is not None
    assert b.weight is not None
    assert a.hidden.weight is b.hidden.weight
    assert a.hidden.weight.data_ptr() != pooler.weight.data_ptr()
    assert a.weight.data_ptr() != b.weight.data_ptr()


def test_what_leaves_the_device_comes_back_from_the_host(
    store: WatchedStore, make_manager: MakeManager, small_engine: Engine
) -> None:
    """Without the store, as long as it is in the host's budget."""
    references, size = four_tasks(store, small_engine)
    manager = make_manager(4 * size, 2 * size)

    use(manager, *references)

    assert [task for task, _ in manager.contents()] == [references[3], references[2]]
    assert (manager.device_bytes, manager.host_bytes) == (2 * size, 4 * size)
    assert reads_of(store, lambda: use(manager, *references)) == []


def test_what_left_the_device_last_stays_longest_on_the_host(
    store: WatchedStore, make_manager: MakeManager, small_engine: Engine
) -> None:
    """A task that the device held till now is not the host's oldest, though read from it first."""
    (a, b, c, d), size = four_tasks(store, small_engine)
    manager = make_manager(2 * size, 2 * size)
    use(manager, a, b, a)

    use(manager, c)  # on the host a makes room; b leaves the device and is the host's youngest
    use(manager, d)

    assert reads_of(store, lambda: use(manager, b)) == []


def test_a_task_in_use_on_the_device_is_never_evicted(
    store: WatchedStore, make_manager: MakeManager, small_engine: Engine
) -> None:
    """Together they may exceed its budget until they are released; the host's copy may go."""
    references, size = four_tasks(store, small_engine)
    manager = make_manager(size, size)

    with manager.acquire_all(references) as tasks:
        assert all(isinstance(task, LoadedTask) for task in tasks)
        assert manager.device_bytes == 4 * size
        assert manager.host_bytes == size
        assert reads_of(store, lambda: use(manager, *references)) == []

    assert manager.device_bytes == size


def test_a_pinned_task_stays_on_the_device(
    store: WatchedStore, make_manager: MakeManager, small_engine: Engine
) -> None:
    """Whatever the host keeps."""
    (pinned, *others), size = four_tasks(store, small_engine)
    manager = make_manager(size, 2 * size)
    manager.pin(pinned)
    manager.preload(pinned).result()

    use(manager, *others)

    assert reads_of(store, lambda: use(manager, pinned)) == []


def test_what_is_added_fills_the_device_and_evicts_nothing_there(
    store: WatchedStore, make_manager: MakeManager, small_engine: Engine
) -> None:
    """Where the device is full it waits on the host."""
    (a, b, c, d), size = four_tasks(store, small_engine)
    manager = make_manager(PLENTY, size * 29 // 10)
    use(manager, a)

    for reference in (b, c, d):
        manager.preload(reference).result()

    assert [task for task, _ in manager.contents()] == [a, b]
    assert manager.host_bytes == 4 * size
    assert reads_of(store, lambda: use(manager, c, d)) == []


def test_a_retired_task_leaves_both(
    store: WatchedStore, make_manager: MakeManager, small_engine: Engine
) -> None:
    """In use it stays until it is released."""
    (a, b, *_), _ = four_tasks(store, small_engine)
    manager = make_manager(PLENTY, PLENTY)
    use(manager, a)

    with acquire(manager, b):
        manager.retire("a")
        manager.retire("bb")
        assert manager.contents() == [(b, True)]

    assert (manager.device_bytes, manager.host_bytes) == (0, 0)


@pytest.mark.parametrize(("host", "device", "which"), [(2, 1, "device"), (1, 2, "host")])
def test_a_task_larger_than_either_memory_is_refused(
    store: WatchedStore,
    make_manager: MakeManager,
    small_engine: Engine,
    host: int,
    device: int,
    which: str,
) -> None:
    """With an error that says which."""
    reference = add_task(store, small_engine, "weather")
    size = task_bytes(store, small_engine, reference)
    manager = make_manager(host * (size - 1), device * (size - 1))

    with pytest.raises(TaskMemoryError, match=f"whole {which} budget"):
        use(manager, reference)

    assert manager.device_bytes == 0


@pytest.mark.gpu
def test_the_host_keeps_what_a_gpu_reads_in_page_locked_memory(
    store: WatchedStore, small_engine: Engine
) -> None:
    """So that the copy to the device does not go through a second buffer."""
    copies = DeviceCopies(small_engine.backbone, cuda())
    reference = add_task(store, small_engine, "weather", "lora")
    manager = TaskManager(store, small_engine, level=0, memory_limit_bytes=PLENTY)

    with acquire(manager, reference) as task:
        staged = list(tensors(copies.staged(task).ops))

    assert staged
    assert all(tensor.is_pinned() for tensor in staged)
    manager.close()


def cuda() -> torch.device:
    """Return the GPU; REQUIRE_GPU=1 makes a missing one a failure, not a skip."""
    if not torch.cuda.is_available():
        (pytest.fail if os.environ.get("REQUIRE_GPU") == "1" else pytest.skip)("no CUDA device")
    return torch.device("cuda")
