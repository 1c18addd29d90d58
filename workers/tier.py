"""One memory that holds tasks: how many use each, which are pinned, what leaves when it is full.

A tier knows neither the store nor a device: what it lacks it gets from the tier below, by a
function. Never evicted is a task that somebody uses and a task that is pinned: where those alone
exceed the budget, they stay until they are released. Of the others the one that was used longest
ago goes first, and before it those that were loaded ahead and that nobody has used yet.
"""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from messages.task_event import TaskReference
from tasks.errors import TaskError
from workers.errors import TaskLoadError, TaskMemoryError
from workers.loaded_task import LoadedTask

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Entry:
    """One task that is in this memory or on its way there."""

    loading: "Future[LoadedTask]" = field(default_factory=Future)
    num_users: int = 0
    num_bytes: int = 0
    """What it occupies; until it is loaded, what is kept free for it."""
    is_loaded: bool = False
    was_used: bool = False


class Tier:
    """Holds tasks in one memory. Every method may be called from any thread.

    Args:
        name: Of the memory, for messages.
        limit_bytes: The budget.
        load: Gets a task from the tier below; called without any lock, once for all who wait.
        option: What raises the budget, for messages.
        on_evicted: Told of a task that left to make room, under this tier's lock.
    """

    def __init__(
        self,
        name: str,
        limit_bytes: int,
        load: Callable[[TaskReference], LoadedTask],
        *,
        option: str,
        on_evicted: Callable[[TaskReference], None] = lambda reference: None,
    ) -> None:
        self._name = name
        self._limit_bytes = limit_bytes
        self._read = load
        self._option = option
        self._on_evicted = on_evicted
        self._lock = threading.Lock()
        self._entries: dict[TaskReference, _Entry] = {}
        # Those that may be evicted, the first to go first.
        self._idle: OrderedDict[TaskReference, _Entry] = OrderedDict()
        self._used_bytes = 0
        """Of all entries."""
        self._idle_bytes = 0
        self._revisions: dict[str, set[TaskReference]] = {}
        """The entries' references by the task's name."""
        self._pinned: dict[str, TaskReference] = {}
        """By name, one revision of each."""
        self._retired: set[str] = set()

    def take(self, reference: TaskReference) -> "Hold":
        """Count one more user of a task, loading it if it is not there. Never raises TaskError.

        The hold is to be given back, whether or not it has a task.
        """
        with self._lock:
            entry = self._entries.get(reference)
            is_first = entry is None
            if entry is None:
                entry = self._enter(reference, 0)
            entry.num_users += 1
            entry.was_used = True
            self._leave_idle(reference)
        if is_first:
            self._load(reference, entry)
        return Hold(reference, entry)

    def give_back(self, holds: Sequence["Hold"]) -> None:
        """Count one user less of each."""
        with self._lock:
            for hold in holds:
                entry = hold.entry
                entry.num_users -= 1
                # One that failed was forgotten, and another may stand in its place by now.
                if self._entries.get(hold.reference) is entry and entry.is_loaded:
                    self._rest(hold.reference, entry)
            self._trim()

    def load_ahead(self, reference: TaskReference, wanted_bytes: int, *, may_evict: bool) -> None:
        """Load a task that nobody asked for yet, if there is room and it is not retired.

        Args:
            reference: Which one.
            wanted_bytes: What it takes at most, most likely.
            may_evict: Whether tasks that nobody uses leave for it.

        Raises:
            TaskError: If it cannot be had.
        """
        with self._lock:
            if reference in self._entries or reference.name in self._retired:
                return
            spared_bytes = self._used_bytes - (self._idle_bytes if may_evict else 0)
            if spared_bytes + wanted_bytes > self._limit_bytes and not self._is_pinned(reference):
                self._say(reference, f"not loaded ahead: no room for {wanted_bytes} bytes")
                return
            entry = self._enter(reference, wanted_bytes)
            self._trim()
        self._load(reference, entry)
        entry.loading.result()

    def pin(self, reference: TaskReference) -> None:
        """Never evict this revision once it is there; one of its task that was pinned may go."""
        with self._lock:
            before = self._pinned.get(reference.name, reference)
            self._pinned[reference.name] = reference
            for other in {before, reference}:
                if other in self._entries and self._entries[other].is_loaded:
                    self._rest(other, self._entries[other])

    def touch(self, reference: TaskReference) -> None:
        """Count a task as used now, if it is here and idle."""
        with self._lock:
            if reference in self._idle:
                self._idle.move_to_end(reference)

    def retire(self, name: str) -> None:
        """Drop all revisions of a task; those in use when they are released."""
        with self._lock:
            self._retired.add(name)
            self._pinned.pop(name, None)
            for reference in tuple(self._revisions.get(name, ())):
                entry = self._entries[reference]
                if entry.is_loaded and not entry.num_users:
                    self._forget(reference, "is retired")

    def serve_again(self, name: str) -> None:
        """Let a retired task stay in memory again."""
        with self._lock:
            self._retired.discard(name)

    def contents(self) -> list[tuple[TaskReference, bool]]:
        """Return the tasks here, last to be evicted first, and whether anybody asked for each."""
        with self._lock:
            kept = [reference for reference in self._entries if reference not in self._idle]
            return [
                (reference, self._entries[reference].was_used)
                for reference in (*kept, *reversed(self._idle))
            ]

    @property
    def used_bytes(self) -> int:
        """What the tasks here occupy together."""
        return self._used_bytes

    def _load(self, reference: TaskReference, entry: _Entry) -> None:
        """Load into an entry that this thread made."""
        try:
            task = self._read(reference)
            if task.num_bytes > self._limit_bytes:
                raise TaskMemoryError(
                    f"{reference.name}@{reference.revision} takes {task.num_bytes} bytes, the "
                    f"whole {self._name} budget is {self._limit_bytes}: start the worker with a "
                    f"larger {self._option}"
                )
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
            entry.is_loaded = True
            self._say(reference, f"loaded, {task.num_bytes} bytes")
            self._rest(reference, entry)
            self._trim()
        entry.loading.set_result(task)

    def _enter(self, reference: TaskReference, num_bytes: int) -> _Entry:
        entry = self._entries[reference] = _Entry(num_bytes=num_bytes)
        self._used_bytes += num_bytes
        self._revisions.setdefault(reference.name, set()).add(reference)
        return entry

    def _rest(self, reference: TaskReference, entry: _Entry) -> None:
        """Let a loaded task be evicted if nobody uses it; drop it at once if it is retired."""
        if entry.num_users:
            return
        if reference.name in self._retired:
            self._forget(reference, "is retired")
        elif self._stays_pinned(reference):
            self._leave_idle(reference)
        elif reference not in self._idle:
            self._idle[reference] = entry
            self._idle_bytes += entry.num_bytes
            if not entry.was_used:
                self._idle.move_to_end(reference, last=False)

    def _is_pinned(self, reference: TaskReference) -> bool:
        return self._pinned.get(reference.name) == reference

    def _stays_pinned(self, reference: TaskReference) -> bool:
        """Tell whether a loaded task is pinned; no longer where the pinned do not fit together."""
        if not self._is_pinned(reference):
            return False
        pinned = [self._entries[one] for one in self._pinned.values() if one in self._entries]
        pinned_bytes = sum(entry.num_bytes for entry in pinned)
        if pinned_bytes <= self._limit_bytes:
            return True
        del self._pinned[reference.name]
        logger.error(
            "task %s@%s is not pinned: the pinned tasks take %s bytes, the whole %s budget is %s; "
            "start the worker with a larger %s",
            reference.name,
            reference.revision,
            pinned_bytes,
            self._name,
            self._limit_bytes,
            self._option,
        )
        return False

    def _leave_idle(self, reference: TaskReference) -> None:
        entry = self._idle.pop(reference, None)
        if entry is not None:
            self._idle_bytes -= entry.num_bytes

    def _forget(self, reference: TaskReference, reason: str) -> None:
        self._leave_idle(reference)
        self._used_bytes -= self._entries.pop(reference).num_bytes
        revisions = self._revisions[reference.name]
        revisions.discard(reference)
        if not revisions:
            del self._revisions[reference.name]
        self._say(reference, f"leaves: {reason}")

    def _trim(self) -> None:
        """Evict idle tasks, longest unused first, until the rest fits the budget."""
        while self._used_bytes > self._limit_bytes and self._idle:
            reference = next(iter(self._idle))
            self._forget(reference, "makes room")
            self._on_evicted(reference)

    def _say(self, reference: TaskReference, what: str) -> None:
        logger.info(
            "task %s@%s, %s memory: %s; %s of %s bytes in use",
            reference.name,
            reference.revision,
            self._name,
            what,
            self._used_bytes,
            self._limit_bytes,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Hold:
    """One use of a task, from `Tier.take` until `Tier.give_back`."""

    reference: TaskReference
    entry: _Entry

    def task(self) -> LoadedTask:
        """Wait for the task.

        Raises:
            TaskError: If it could not be had.
        """
        return self.entry.loading.result()
