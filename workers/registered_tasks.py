"""What a worker does with the tasks topic: it has those tasks in memory that will be asked for.

A batch names the exact weights that its rows need, so nothing here decides what is answered; a
task that is not in memory yet is loaded when its first batch comes.

However many tasks are registered, a start loads only those that are pinned and those that this
worker used last. A task that is registered or changed while the worker serves is loaded at once:
whoever added it is about to ask.
"""

import logging
import threading
from collections.abc import Collection, Sequence
from concurrent.futures import Future, wait

from messages.errors import MessageError
from messages.task_event import TaskEvent, TaskReference
from messages.task_event_codec import decode_task_event
from workers.task_manager import TaskManager

logger = logging.getLogger(__name__)


class RegisteredTasks:
    """Follows the topic for a task manager.

    Args:
        tasks: Loads them.
        pinned: Names of tasks whose newest revision is loaded at the start and never evicted.
        recent: What else to load at the start, the most important first.
    """

    def __init__(
        self, tasks: TaskManager, pinned: Collection[str], recent: Sequence[TaskReference]
    ) -> None:
        self._tasks = tasks
        self._pinned = frozenset(pinned)
        self._recent = tuple(recent)
        self._names = self._pinned | {reference.name for reference in recent}
        self._lock = threading.Lock()
        self._is_started = False
        self._found: dict[str, bytes | None] = {}
        """Until the start: the newest value of each of `_names`."""

    def apply(self, key: bytes, value: bytes | None) -> None:
        """Take over one record of the topic; called on the thread that follows it."""
        name = key.decode("utf-8", "replace")
        with self._lock:
            if not self._is_started:
                # Of ten thousand others not even the bytes are looked at.
                if name in self._names:
                    self._found[name] = value
                return
        event = None if value is None else _decoded(name, value)
        if value is None or (event is not None and event.retired):
            self._tasks.retire(name)
        elif event is not None:
            self._load(event.revisions[-1].reference)

    def start(self, limit_s: float) -> None:
        """Load what is in use, now that all records of before are applied.

        Returns when the pinned tasks are loaded, at latest after `limit_s`; the others follow in
        the background.
        """
        wait(self._begin(), limit_s)

    def _begin(self) -> "list[Future[None]]":
        """Ask for what is in use; return the loads of what is pinned.

        Under the lock, so that a record of later is applied after the older ones of its task.
        """
        with self._lock:
            self._is_started = True
            found = {
                name: event
                for name, value in self._found.items()
                if value is not None and (event := _decoded(name, value)) and not event.retired
            }
            self._found.clear()
            for name in sorted(self._pinned - found.keys()):
                logger.warning(
                    "the pinned task %s is not registered: it is pinned once it is", name
                )
            newest = {name: event.revisions[-1].reference for name, event in found.items()}
            pinned = [self._load(newest[name]) for name in sorted(self._pinned & newest.keys())]
            for reference in self._recent:
                event = found.get(reference.name)
                if event is None:
                    continue
                if any(revision.reference == reference for revision in event.revisions):
                    self._tasks.preload(reference)
                self._load(newest[reference.name])
            return pinned

    def _load(self, newest: TaskReference) -> "Future[None]":
        if newest.name in self._pinned:
            self._tasks.pin(newest)
        return self._tasks.preload(newest)


def _decoded(name: str, value: bytes) -> TaskEvent | None:
    """Return the task event that a record holds; None, logged, where it holds none of this name."""
    try:
        event = decode_task_event(value)
    except MessageError as error:
        logger.error("task event of %.64r ignored: %s", name, error)
        return None
    if event.name != name:
        logger.error("task event of %.64r ignored: the key is not the name of the task", name)
        return None
    return event
