"""Real artifacts in a store that is watched, and ways to use them through a manager."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from messages.task_event import TaskReference
from tasks.artifact import Artifact
from tasks.artifact_writer import TrainedLevel, write_artifact
from tasks.backbone_shape import backbone_digest, read_shape
from tasks.description import BackboneReference, EmbeddingLayout, HeadLayout
from tasks.errors import TaskError
from tasks.pets.bitfit import BitFit
from tasks.store import TaskStore
from tests.workers.pets import random_task
from workers.engine import Engine
from workers.loaded_task import LoadedTask
from workers.task_manager import TaskManager

PLENTY = 1 << 30
LIMIT_S = 60
UNKNOWN = TaskReference("unknown", 1, "sha256:" + "0" * 64)


class WatchedStore(TaskStore):
    """A store that knows what was read from it, and can fail: what is in memory is not read."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.opened: list[str] = []
        self.failures: dict[str, Exception] = {}
        self.gates: dict[str, threading.Event] = {}
        """Opening a task that has one waits for it."""
        self.waiting: set[str] = set()
        self.stands_for: TaskReference | None = None
        """Where set, every task is this one under another name."""

    def open(self, reference: TaskReference) -> Artifact:
        """Open as a store does."""
        self.opened.append(reference.name)
        if reference.name in self.failures:
            raise self.failures[reference.name]
        if reference.name in self.gates:
            self.waiting.add(reference.name)
            assert self.gates[reference.name].wait(LIMIT_S)
        return super().open(self.stands_for or reference)


@contextmanager
def acquire(manager: TaskManager, reference: TaskReference) -> Iterator[LoadedTask]:
    """Hold one task; raise where it cannot be had."""
    with manager.acquire_all([reference]) as (task,):
        if isinstance(task, TaskError):
            raise task
        yield task


def use(manager: TaskManager, *references: TaskReference) -> None:
    """Take and release each task in turn."""
    for reference in references:
        with acquire(manager, reference):
            pass


def reads_of(store: WatchedStore, act: Callable[[], object]) -> list[str]:
    """Return which tasks are read from the store meanwhile: those that are not in memory."""
    store.opened.clear()
    act()
    return list(store.opened)


def until(is_reached: Callable[[], bool]) -> None:
    """Wait for what another thread does."""
    deadline_s = time.monotonic() + LIMIT_S
    while not is_reached():
        assert time.monotonic() < deadline_s
        threading.Event().wait(0.01)


def add_task(
    store: TaskStore,
    engine: Engine,
    name: str,
    variant: str = "bitfit",
    digest: str | None = None,
    head_bias: NDArray[np.float32] | None = None,
) -> TaskReference:
    """Write an artifact and add it to the store, as `petstream tasks add` does.

    Args:
        store: Where it comes to lie.
        engine: For whose backbone.
        name: Of the task; what differs in it is its next revision.
        variant: Of `tests.workers.pets`, or a mask of a single weight.
        digest: Of the backbone, where it shall be another's.
        head_bias: Of its seven labels, where it shall not be random.
    """
    is_thin = variant == "thin-mask"
    task = random_task("mask" if is_thin else variant, engine.backbone.shape, seed=len(name))
    if is_thin:  # larger in memory than its file: an offset for each row of each weight
        for dropped in task.dense.values():
            dropped[:] = False
            dropped[0, 0] = True
    if head_bias is not None:
        task = replace(task, head_bias=head_bias)
    level = TrainedLevel(
        level=0,
        backbone=BackboneReference(name="minilm-l3", digest=digest or engine.backbone.digest),
        shape=engine.backbone.shape,
        pet=task.pet,
        pooling="mean",
        max_tokens=128,
        head_weight=task.head_weight,
        head_bias=task.head_bias,
        tensors=task.dense,
    )
    folder = store.root.parent / name
    write_artifact(
        folder,
        name=name,
        kind="single_label",
        labels=[f"label-{i}" for i in range(len(task.head_bias))],
        takes_pair=False,
        source="random",
        licence="none",
        levels=(level,),
        overwrite=True,
    )
    artifact = store.add(folder, {"minilm-l3": engine.backbone.shape})
    return TaskReference(name, artifact.description.revision, artifact.digest)


def write_bare_embedding(folder: Path, backbone: Path) -> Artifact:
    """Write an embedding that is the backbone's own mean-pooled vectors, at length 1.

    Args:
        folder: To be written.
        backbone: A real backbone's folder, by whose name the task knows it.
    """
    shape = read_shape(backbone)
    level = TrainedLevel(
        level=0,
        backbone=BackboneReference(name=backbone.name, digest=backbone_digest(backbone)),
        shape=shape,
        pet=BitFit(sites=()),
        pooling="mean",
        max_tokens=128,
        head_weight=None,
        head_bias=None,
        tensors={},
        head=HeadLayout(output="none"),
    )
    return write_artifact(
        folder,
        name="sentences",
        kind="embedding",
        labels=(),
        embedding=EmbeddingLayout(dimensions=shape.hidden_size, normalise=True),
        takes_pair=False,
        source="",
        licence="",
        levels=(level,),
    )


def task_bytes(store: TaskStore, engine: Engine, reference: TaskReference) -> int:
    """What a task occupies in memory."""
    manager = TaskManager(store, engine, level=0, memory_limit_bytes=PLENTY)
    with acquire(manager, reference) as task:
        size = task.num_bytes
    manager.close()
    return size
