"""The tasks there are, by every name a query may call them: fed by the compacted `tasks` topic.

`apply` runs on the table follower's thread and `resolve` on the compute thread: every change is one
assignment of a finished value, so a reader sees a task's old state or its new one, never a mix.
"""

import logging
from dataclasses import dataclass

from messages.errors import MessageError, Reason
from messages.task_event import TaskEvent, TaskReference, TaskRevision
from messages.task_event_codec import decode_task_event

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Task:
    event: TaskEvent
    selectors: dict[str, TaskRevision]
    """Every way to ask for it, in full (`name`, `name@2`, `name:alias`), to the revision meant."""


class TaskDirectory:
    """Resolves the `task` of a query to one revision."""

    def __init__(self) -> None:
        self._tasks: dict[str, _Task] = {}
        self._selectors: dict[str, TaskRevision] = {}
        self.num_bad_events = 0
        """Records of the topic that were not task events; each left its task as it was."""

    def __len__(self) -> int:
        return sum(not task.event.retired for task in self._tasks.values())

    def apply(self, key: bytes, value: bytes | None) -> None:
        """Take over one record of the tasks topic: the whole state of one name, or its removal.

        A record that does not decode, or is not of the name its key says, changes nothing: one bad
        publisher must not take a served task away.
        """
        name = key.decode("utf-8", "replace")
        if value is None:
            self._replace(name, None)
            return
        try:
            event = decode_task_event(value)
            if event.name != name:
                raise MessageError(Reason.BAD_KEY, "the key is not the name of the task")
        except MessageError as error:
            self.num_bad_events += 1
            logger.error("bad task event for %.64s, kept what was known: %s", name, error)
            return
        self._replace(name, _Task(event, {} if event.retired else _selectors(event)))
        logger.info(
            "task %s: %s", name, "retired" if event.retired else f"{len(event.revisions)} revisions"
        )

    def backbones(self) -> set[str]:
        """Return the backbones of all live tasks."""
        revisions = set(self._selectors.values())
        return {level.backbone for revision in revisions for level in revision.levels}

    def resolve(self, task: str) -> TaskRevision:
        """Return the revision that `name`, `name@revision` or `name:alias` means now.

        Raises:
            MessageError: TASK_UNKNOWN or TASK_RETIRED.
        """
        revision = self._selectors.get(task)
        if revision is not None:
            return revision
        name = task.partition("@")[0].partition(":")[0]
        known = self._tasks.get(name)
        if known is None:
            raise MessageError(Reason.TASK_UNKNOWN, "no such task; see `petstream tasks list`")
        if known.event.retired:
            raise MessageError(Reason.TASK_RETIRED, f"task {name} was retired")
        raise MessageError(Reason.TASK_UNKNOWN, f"task {name} has no such revision or alias")

    def pinned(self, reference: TaskReference) -> TaskRevision:
        """Return the revision an escalated query began with, also when its task retired since.

        Raises:
            MessageError: TASK_UNKNOWN if the revision was removed or published anew otherwise.
        """
        known = self._tasks.get(reference.name)
        for revision in known.event.revisions if known else ():
            if revision.reference == reference:
                return revision
        raise MessageError(
            Reason.TASK_UNKNOWN, f"revision {reference.revision} of the task was removed"
        )

    def _replace(self, name: str, task: _Task | None) -> None:
        old = self._tasks.get(name)
        if task is None:
            self._tasks.pop(name, None)
        else:
            self._tasks[name] = task
            self._selectors.update(task.selectors)
        # Stale names go last: a reader may meet old and new names at once, but never a gap.
        for selector in old.selectors if old else ():
            if task is None or selector not in task.selectors:
                self._selectors.pop(selector, None)


def _selectors(event: TaskEvent) -> dict[str, TaskRevision]:
    if not event.revisions:
        return {}
    by_number = {revision.reference.revision: revision for revision in event.revisions}
    return {
        event.name: event.revisions[-1],
        **{f"{event.name}@{number}": revision for number, revision in by_number.items()},
        **{
            f"{event.name}:{alias}": by_number[number]
            for alias, number in event.aliases
            if number in by_number
        },
    }
