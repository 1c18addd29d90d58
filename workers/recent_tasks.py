"""The tasks that a worker used last, in a file: what its next start loads before it is asked.

A hint and nothing more: without the file, or with one that cannot be read, each task is loaded
when its first query comes. It is written every half minute and at the end, so that a worker that
was killed finds it, too.
"""

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from messages.errors import MessageError
from messages.schema import (
    VERSION,
    Digest,
    Revision,
    TaskName,
    WireModel,
    check_payload,
    validate_message,
)
from messages.strict_json import read_json, write_json
from messages.task_event import TaskReference

logger = logging.getLogger(__name__)

MAX_TASKS = 4096
WRITE_EVERY_S = 30.0
_MAX_BYTES = 1 << 20


class _TaskFields(WireModel):
    name: TaskName
    revision: Revision
    digest: Digest


class _FileFields(WireModel):
    tasks: Annotated[list[_TaskFields], Field(max_length=MAX_TASKS)]


class RecentTasks:
    """The file at `path`.

    Args:
        path: Of one worker alone.
        clock_s: Seconds that only grow.
    """

    def __init__(self, path: Path, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock_s = clock_s
        self._before: frozenset[TaskReference] = frozenset()
        self._written: Sequence[TaskReference] | None = None
        self._due_s = clock_s() + WRITE_EVERY_S

    def read(self) -> list[TaskReference]:
        """Return what the worker before used, newest first; nothing where that is not known."""
        try:
            with self._path.open("rb") as file:
                raw = file.read(_MAX_BYTES + 1)
            tree = read_json(check_payload(raw, _MAX_BYTES), max_array_items=MAX_TASKS)
            fields = validate_message(_FileFields, tree)
        except FileNotFoundError:
            return []
        except (OSError, MessageError) as error:
            logger.warning("%s is not used: %s", self._path, error)
            return []
        found = [TaskReference(task.name, task.revision, task.digest) for task in fields.tasks]
        self._before = frozenset(found)
        return found

    def is_due(self) -> bool:
        """Tell, once in `WRITE_EVERY_S`, that it is time to write."""
        if self._clock_s() < self._due_s:
            return False
        self._due_s = self._clock_s() + WRITE_EVERY_S
        return True

    def write(self, contents: Sequence[tuple[TaskReference, bool]]) -> None:
        """Replace the file, unless it says the same already; what goes wrong is logged only.

        What was loaded because the file said so stays in it, though nobody has asked for it yet:
        a worker that is started twice must not forget.

        Args:
            contents: What is in memory, and whether it was asked for, newest first; of more than
                `MAX_TASKS` the newest count.
        """
        used = [task for task, was_used in contents if was_used or task in self._before]
        used = used[:MAX_TASKS]
        if used == self._written:
            return
        tasks = [
            {"name": task.name, "revision": task.revision, "digest": task.digest} for task in used
        ]
        partial = self._path.with_suffix(".partial")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(write_json({"v": VERSION, "tasks": tasks}))
            partial.replace(self._path)
        except OSError as error:
            logger.warning("%s cannot be written: %s", self._path, error)
            return
        self._written = used
