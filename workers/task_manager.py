"""The tasks that are in memory, and those that are only on disk.

Two tiers now: memory, within a budget, and the task store. A task that is in use is never
evicted: where the tasks in use alone exceed the budget, they stay until they are released. Of
the others the one that was used longest ago goes first. What is loaded before anyone asks for it
takes only room that is free.
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
from workers.errors import TaskLoadError, TaskMemoryError
from workers.loaded_task import LoadedTask

__all__ = ["LoadedTask", "TaskManager"]

logger = logging.getLogger(__name__)

_MEMORY_PER_FILE_BYTE = 2
"""A float16 on disk is at most a float32 in memory, a position's byte of gap code two bytes."""


@dataclass(slots=True, eq=False)
class _Entry:
    """One task that is in memory or on its way there."""

    loading: "Future[LoadedTask]" = field(default_factory=Future)
    num_users: int = 0
    num_bytes: int = 0
    """What it occupies; until it is loaded, what is kept free for it."""


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
        self._entries: dict[TaskReference, _Entry] = {}
        # Those that are loaded and that nobody uses, the one used longest ago first.
        self._idle: OrderedDict[TaskReference, _Entry] = OrderedDict()
        self._used_bytes = 0
        """Of all entries."""
        self._revisions: dict[str, set[TaskReference]] = {}
        """The entries' references by the task's name."""
        self._retired: set[str] = set()
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="task-loader")

    @contextmanager
    def acquire_all(
        self, references: Sequence[TaskReference]
    ) -> Iterator[list[LoadedTask | TaskError]]:
        """Hold tasks in memory for the block, loading those that are not there yet.

        In the place of one that cannot be had stands its error: it is not in the store, not
        valid, not for this backbone, too large, or could not be loaded for another reason.
        """
        held: list[tuple[TaskReference, _Entry]] = []
        tasks: list[LoadedTask | TaskError] = []
        try:
            for reference in references:
                entry = self._take(reference)
                held.append((reference, entry))
                try:
                    tasks.append(entry.loading.result())
                except TaskError as error:
                    tasks.append(error)
            yield tasks
        finally:
            self._give_back(held)

    def preload(self, reference: TaskReference) -> None:
        """Load a task in the background if there is room for it; nothing is evicted for it.

        The task serves (again) from now on. An error is logged only: whoever acquires the task
        gets it.
        """
        with self._lock:
            self._retired.discard(reference.name)
        self._loader.submit(self._preload, reference)

    def retire(self, name: str) -> None:
        """Drop all revisions of a task that no longer serves; those in use when they are released.

        What still asks for it gets it, loaded for that one use.
        """
        with self._lock:
            self._retired.add(name)
            for reference in tuple(self._revisions.get(name, ())):
                if reference in self._idle:
                    self._forget(reference, "is retired")

    def close(self) -> None:
        """Stop loading in the background; what is under way is finished."""
        self._loader.shutdown(cancel_futures=True)

    def _take(self, reference: TaskReference) -> _Entry:
        """Count one more user of a task; return its entry, which is loaded or being loaded."""
        with self._lock:
            entry = self._entries.get(reference)
            is_first = entry is None
            if entry is None:
                entry = self._enter(reference, 0)
            entry.num_users += 1
            self._idle.pop(reference, None)
        if is_first:
            self._load(reference, entry)
        return entry

    def _give_back(self, held: Sequence[tuple[TaskReference, _Entry]]) -> None:
        with self._lock:
            for reference, entry in held:
                entry.num_users -= 1
                # One that failed was forgotten, and another may stand in its place by now.
                if self._entries.get(reference) is entry and entry.loading.done():
                    self._rest(reference, entry)
            self._trim()

    def _load(self, reference: TaskReference, entry: _Entry) -> None:
        """Load from the store into an entry that this thread made."""
        try:
            task = self._read(reference)
        except BaseException as error:
            # The next one to ask tries again: the file may have come by then.
            with self._lock:
                self._forget(reference, "cannot be loaded")
            if isinstance(error, Exception) and not isinstance(error, TaskError):
                logger.exception("task %s@%s", reference.name, reference.revision)
                error = TaskLoadError(
                    f"{reference.name}@{reference.revision} could not be loaded: "
                    f"{type(error).__name__}, {error}"
                )
            entry.loading.set_exception(error)
            if not isinstance(error, Exception):
                raise
            return
        with self._lock:
            self._used_bytes += task.num_bytes - entry.num_bytes
            entry.num_bytes = task.num_bytes
            logger.info(
                "task %s@%s loaded, %s bytes, %s of %s in use",
                reference.name,
                reference.revision,
                task.num_bytes,
                self._used_bytes,
                self._memory_limit_bytes,
            )
            if not entry.num_users and self._used_bytes > self._memory_limit_bytes:
                self._forget(reference, "does not fit beside those in memory")
            else:
                self._rest(reference, entry)
            self._trim()
        entry.loading.set_result(task)

    def _read(self, reference: TaskReference) -> LoadedTask:
        artifact = self._store.open(reference)
        weights = artifact.load_level(
            self._level,
            self._engine.backbone.shape,
            backbone_digest=self._engine.backbone.digest,
        )
        task = self._engine.load_task(artifact.description, self._level, weights)
        if task.num_bytes > self._memory_limit_bytes:
            raise TaskMemoryError(
                f"{reference.name}@{reference.revision} takes {task.num_bytes} bytes, the whole "
                f"budget is {self._memory_limit_bytes}: start the worker with a larger --memory-mib"
            )
        return task

    def _preload(self, reference: TaskReference) -> None:
        try:
            with self._lock:
                if reference in self._entries:
                    return
            artifact = self._store.open(reference)
            file = artifact.folder / artifact.description.level(self._level).file
            wanted_bytes = _MEMORY_PER_FILE_BYTE * file.stat().st_size
            with self._lock:
                if reference in self._entries or reference.name in self._retired:
                    return
                if self._used_bytes + wanted_bytes > self._memory_limit_bytes:
                    logger.info(
                        "task %s@%s not preloaded: no room for %s bytes",
                        reference.name,
                        reference.revision,
                        wanted_bytes,
                    )
                    return
                entry = self._enter(reference, wanted_bytes)
            self._load(reference, entry)
            entry.loading.result()
        except TaskError as error:
            logger.warning(
                "task %s@%s cannot be preloaded: %s", reference.name, reference.revision, error
            )
        except Exception:
            logger.exception("task %s@%s cannot be preloaded", reference.name, reference.revision)

    def _enter(self, reference: TaskReference, num_bytes: int) -> _Entry:
        entry = self._entries[reference] = _Entry(num_bytes=num_bytes)
        self._used_bytes += num_bytes
        self._revisions.setdefault(reference.name, set()).add(reference)
        return entry

    def _rest(self, reference: TaskReference, entry: _Entry) -> None:
        """Let a loaded task be evicted if nobody uses it; drop it at once if it is retired."""
        if entry.num_users:
            return
        self._idle[reference] = entry
        if reference.name in self._retired:
            self._forget(reference, "is retired")

    def _forget(self, reference: TaskReference, reason: str) -> None:
        self._used_bytes -= self._entries.pop(reference).num_bytes
        self._idle.pop(reference, None)
        revisions = self._revisions[reference.name]
        revisions.discard(reference)
        if not revisions:
            del self._revisions[reference.name]
        logger.info("task %s@%s leaves memory: %s", reference.name, reference.revision, reason)

    def _trim(self) -> None:
        """Evict idle tasks, longest unused first, until the rest fits the budget."""
        while self._used_bytes > self._memory_limit_bytes and self._idle:
            self._forget(next(iter(self._idle)), "makes room")
