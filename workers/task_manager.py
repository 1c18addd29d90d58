"""The tasks that are in memory, and those that are only on disk.

Two tiers now: memory, within a budget, and the task store. A task that is in use is never
evicted: where the tasks in use alone exceed the budget, they stay until they are released. Of
the others the one that was used longest ago goes first.
"""

import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from messages.task_event import TaskReference
from tasks.errors import TaskError
from tasks.store import TaskStore
from workers.engine import Engine
from workers.errors import TaskMemoryError
from workers.loaded_task import LoadedTask

__all__ = ["LoadedTask", "TaskManager"]

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Entry:
    """One task that is in memory or on its way there."""

    loading: "Future[LoadedTask]" = field(default_factory=Future)
    num_users: int = 0
    num_bytes: int = 0
    """0 until it is loaded."""


class TaskManager:
    """Loads tasks of one level for one engine. Every method may be called from any thread."""

    def __init__(
        self, store: TaskStore, engine: Engine, *, level: int, memory_limit_bytes: int
    ) -> None:
        self._store = store
        self._engine = engine
        self._level = level
        self._memory_limit_bytes = memory_limit_bytes
        self._lock = threading.Lock()
        # Least recently used first.
        self._entries: OrderedDict[TaskReference, _Entry] = OrderedDict()
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="task-loader")

    @contextmanager
    def acquire(self, reference: TaskReference) -> Iterator[LoadedTask]:
        """Hold a task in memory for the block, loading it where it is not there yet.

        Raises:
            TaskError: If it is not in the store, not valid, not for this backbone, or too large.
        """
        task = self._take(reference)
        try:
            yield task
        finally:
            self._give_back(reference)

    @contextmanager
    def acquire_all(
        self, references: Sequence[TaskReference]
    ) -> Iterator[list[LoadedTask | TaskError]]:
        """Hold several tasks for the block; in the place of one that cannot be had, its error."""
        held: list[TaskReference] = []
        tasks: list[LoadedTask | TaskError] = []
        try:
            for reference in references:
                try:
                    tasks.append(self._take(reference))
                    held.append(reference)
                except TaskError as error:
                    tasks.append(error)
            yield tasks
        finally:
            for reference in held:
                self._give_back(reference)

    def preload(self, reference: TaskReference) -> None:
        """Load a task in the background, unless the budget is used up.

        An error is logged only: whoever acquires the task gets it.
        """
        self._loader.submit(self._preload, reference)

    def evict(self, reference: TaskReference) -> bool:
        """Drop a task from memory; return False where it is in use or not there."""
        with self._lock:
            entry = self._entries.get(reference)
            if entry is None or entry.num_users:
                return False
            del self._entries[reference]
            return True

    @property
    def resident(self) -> tuple[TaskReference, ...]:
        """The tasks in memory, least recently used first."""
        with self._lock:
            return tuple(ref for ref, entry in self._entries.items() if entry.num_bytes)

    @property
    def used_bytes(self) -> int:
        """What the tasks in memory occupy."""
        with self._lock:
            return self._used_bytes()

    def close(self) -> None:
        """Stop loading in the background; what is under way is finished."""
        self._loader.shutdown(cancel_futures=True)

    def _take(self, reference: TaskReference) -> LoadedTask:
        """Count one more user of a task and return it when it is loaded."""
        with self._lock:
            entry = self._entries.get(reference)
            is_first = entry is None
            if entry is None:
                entry = self._entries[reference] = _Entry()
            entry.num_users += 1
            self._entries.move_to_end(reference)
        if is_first:
            self._load(reference, entry)
        try:
            return entry.loading.result()
        except BaseException:
            self._give_back(reference, entry)
            raise

    def _give_back(self, reference: TaskReference, entry: _Entry | None = None) -> None:
        with self._lock:
            # A failed entry was removed, and another may stand in its place by now.
            entry = entry or self._entries[reference]
            entry.num_users -= 1
            self._trim()

    def _load(self, reference: TaskReference, entry: _Entry) -> None:
        """Load from the store into an entry that this thread made."""
        try:
            artifact = self._store.open(reference)
            weights = artifact.load_level(
                self._level,
                self._engine.backbone.shape,
                backbone_digest=self._engine.backbone.digest,
            )
            task = self._engine.load_task(artifact.description, self._level, weights)
            if task.num_bytes > self._memory_limit_bytes:
                raise TaskMemoryError(
                    f"{reference.name}@{reference.revision} takes {task.num_bytes} bytes, the "
                    f"budget is {self._memory_limit_bytes}: raise the worker's memory limit"
                )
        except Exception as error:  # noqa: BLE001 - handed to everyone who waits for the task
            # The next one to ask tries again: the file may have come by then.
            with self._lock:
                del self._entries[reference]
            entry.loading.set_exception(error)
            return
        with self._lock:
            entry.num_bytes = task.num_bytes
            self._trim()
        entry.loading.set_result(task)
        logger.info(
            "task %s@%s loaded, %s bytes", reference.name, reference.revision, task.num_bytes
        )

    def _preload(self, reference: TaskReference) -> None:
        with self._lock:
            if reference in self._entries or self._used_bytes() >= self._memory_limit_bytes:
                return
        try:
            with self.acquire(reference):
                pass
        except TaskError as error:
            logger.warning(
                "task %s@%s cannot be preloaded: %s", reference.name, reference.revision, error
            )

    def _used_bytes(self) -> int:
        return sum(entry.num_bytes for entry in self._entries.values())

    def _trim(self) -> None:
        """Evict idle tasks, longest unused first, until the rest fits the budget."""
        excess_bytes = self._used_bytes() - self._memory_limit_bytes
        for reference, entry in list(self._entries.items()):
            if excess_bytes <= 0:
                return
            if not entry.num_users and entry.num_bytes:
                del self._entries[reference]
                excess_bytes -= entry.num_bytes
                logger.info("task %s@%s evicted", reference.name, reference.revision)
