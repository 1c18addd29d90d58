"""The tasks of a worker: on disk, in host memory, in the memory of a device.

    disk (task store) --read, check, lay out--> host --copy--> device

On a CPU host and device are one memory: there is one tier above the store and no copy. With a
device the host keeps what it can of what the device had to give up, so that it comes back
without the store. What each memory keeps and what it gives up is `workers/tier.py`.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from messages.task_event import TaskReference
from tasks.bfloat16_record import passes_bfloat16
from tasks.errors import TaskError
from tasks.store import TaskStore
from workers.device_copies import DeviceCopies
from workers.engine import Engine
from workers.loaded_task import LoadedTask
from workers.tier import Hold, Tier

__all__ = ["DeviceMemory", "LoadedTask", "TaskManager"]

logger = logging.getLogger(__name__)

_MEMORY_PER_FILE_BYTE = 2
"""A float16 on disk is at most a float32 in memory, a position's byte of gap code two bytes."""


_PATIENCE_S = 0.05
"""How long a load in the background waits for a moment in which nothing is computed. It takes one
core and Python's lock from a batch that runs; what is asked for meanwhile is loaded at once."""


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """A device with a memory of its own, and how much of it tasks may take."""

    device: torch.device
    limit_bytes: int


class TaskManager:
    """Loads tasks of one level for one engine. Every method may be called from any thread.

    Args:
        store: Where they lie on disk.
        engine: What will run them.
        level: Which level of each task.
        memory_limit_bytes: Of host memory.
        device: None where the engine runs in host memory.
    """

    def __init__(
        self,
        store: TaskStore,
        engine: Engine,
        *,
        level: int,
        memory_limit_bytes: int,
        device: DeviceMemory | None = None,
    ) -> None:
        self._store = store
        self._engine = engine
        self._level = level
        self._copies = None if device is None else DeviceCopies(engine.backbone, device.device)
        self._host = Tier("host", memory_limit_bytes, self._from_disk, option="--memory-mib")
        self._tiers = [self._host]
        if device is not None:
            self._tiers.append(
                Tier(
                    "device",
                    device.limit_bytes,
                    self._from_host,
                    option="device memory",
                    on_evicted=self._host.touch,
                )
            )
        self._num_held = 0
        """Blocks of `acquire_all` that are open: batches that run."""
        self._is_idle = threading.Condition()
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="task-loader")

    @contextmanager
    def acquire_all(
        self, references: Sequence[TaskReference]
    ) -> Iterator[list[LoadedTask | TaskError]]:
        """Hold tasks where the engine runs them for the block, loading those that are not there.

        In the place of one that cannot be had stands its error: it is not in the store, not
        valid, not for this backbone, too large, or could not be loaded for another reason.
        """
        top = self._tiers[-1]
        holds: list[Hold] = []
        tasks: list[LoadedTask | TaskError] = []
        with self._is_idle:
            self._num_held += 1
        try:
            for reference in references:
                holds.append(top.take(reference))
                try:
                    tasks.append(holds[-1].task())
                except TaskError as error:
                    tasks.append(error)
            yield tasks
        finally:
            top.give_back(holds)
            with self._is_idle:
                self._num_held -= 1
                self._is_idle.notify_all()

    def preload(self, reference: TaskReference) -> "Future[None]":
        """Load a task in the background, where tasks that nobody uses can make room for it.

        The task serves (again) from now on. An error is logged only: whoever acquires the task
        gets it.

        Returns:
            Done when it is loaded or cannot be.
        """
        for tier in self._tiers:
            tier.serve_again(reference.name)
        return self._loader.submit(self._preload, reference)

    def pin(self, reference: TaskReference) -> None:
        """Never evict this revision once it is loaded; a pinned one of the same task may go."""
        self._tiers[-1].pin(reference)

    def retire(self, name: str) -> None:
        """Drop all revisions of a task that no longer serves; those in use when they are released.

        What still asks for it gets it, loaded for that one use.
        """
        # From the top, lest one is copied up from below meanwhile.
        for tier in reversed(self._tiers):
            tier.retire(name)

    def contents(self) -> list[tuple[TaskReference, bool]]:
        """Return what is where the engine runs it, last to leave first, and if it was asked for."""
        return self._tiers[-1].contents()

    @property
    def host_bytes(self) -> int:
        """What the tasks in host memory occupy."""
        return self._host.used_bytes

    @property
    def device_bytes(self) -> int:
        """What the tasks occupy where the engine runs them."""
        return self._tiers[-1].used_bytes

    def in_background(self, job: Callable[[], None]) -> None:
        """Run a small job on the loading thread, behind the loads that wait there."""
        self._loader.submit(job)

    def close(self) -> None:
        """Stop loading in the background; what is under way is finished."""
        self._loader.shutdown(cancel_futures=True)

    def _from_disk(self, reference: TaskReference) -> LoadedTask:
        artifact = self._store.open(reference)
        weights = artifact.load_level(
            self._level,
            self._engine.backbone.shape,
            backbone_digest=self._engine.backbone.digest,
        )
        passes = passes_bfloat16(artifact, self._level)
        precision = self._engine.precision_of(passes_bfloat16=passes)
        task = self._engine.load_task(artifact.description, self._level, weights, precision)
        return task if self._copies is None else self._copies.staged(task)

    def _from_host(self, reference: TaskReference) -> LoadedTask:
        assert self._copies is not None
        hold = self._host.take(reference)
        try:
            return self._copies.of(hold.task())
        finally:
            self._host.give_back([hold])

    def _preload(self, reference: TaskReference) -> None:
        with self._is_idle:
            self._is_idle.wait_for(lambda: not self._num_held, _PATIENCE_S)
        try:
            artifact = self._store.open(reference)
            file = artifact.folder / artifact.description.level(self._level).file
            wanted_bytes = _MEMORY_PER_FILE_BYTE * file.stat().st_size
            # Where there is a device it is filled, but nothing leaves it for what nobody asked for.
            for tier in self._tiers:
                tier.load_ahead(reference, wanted_bytes, may_evict=tier is self._host)
        except TaskError as error:
            logger.warning(
                "task %s@%s cannot be preloaded: %s", reference.name, reference.revision, error
            )
        except Exception:
            logger.exception("task %s@%s cannot be preloaded", reference.name, reference.revision)
