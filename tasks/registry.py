"""What the `tasks` topic says of a task next: pure functions from one event to the next.

No Kafka here: whoever publishes the event makes sure that nobody published another in between.
"""

import re
from collections.abc import Iterable
from dataclasses import replace

from messages.limits import MAX_MAP_ITEMS
from messages.task_event import TaskEvent, TaskLevel, TaskReference, TaskRevision
from tasks.artifact import Artifact
from tasks.errors import (
    BadAlias,
    RevisionConflict,
    TaskIsRetired,
    TooManyRevisions,
    UnknownRevision,
    UnknownTask,
)

MAX_REVISIONS = 1000
"""Of one task: at 8 levels each, their event still fits into a record of the topic (1 MiB)."""

_ALIAS = re.compile(r"[a-z][a-z0-9._-]{0,63}\Z")


def revision_of(artifact: Artifact) -> TaskRevision:
    """Return what schedulers and workers must know of an artifact."""
    description = artifact.description
    return TaskRevision(
        reference=TaskReference(description.name, description.revision, artifact.digest),
        kind=description.kind,
        num_outputs=description.num_outputs,
        takes_pair=description.takes_pair,
        levels=tuple(
            TaskLevel(
                level.level,
                level.backbone.name,
                level.pet.kind,
                level.max_tokens,
                level.truncation or "head",
            )
            for level in description.levels
        ),
    )


def add_revision(current: TaskEvent | None, revision: TaskRevision) -> TaskEvent:
    """Register a revision; a retired task serves again. Adding it twice changes nothing.

    Raises:
        RevisionConflict: If that revision is registered with another digest.
        TooManyRevisions: If the task has `MAX_REVISIONS` others.
    """
    name = revision.reference.name
    if current is None:
        return TaskEvent(name, retired=False, revisions=(revision,))
    others = []
    for known in current.revisions:
        if known.reference.revision != revision.reference.revision:
            others.append(known)
        elif known.reference.digest != revision.reference.digest:
            raise RevisionConflict(
                f"{name}@{known.reference.revision} is registered with digest "
                f"{known.reference.digest[:19]}, not {revision.reference.digest[:19]}: add the "
                f"task's folder again, it then gets the next revision"
            )
    if len(others) >= MAX_REVISIONS:
        raise TooManyRevisions(
            f"{name} has {len(others)} revisions: go on under another name and retire this one"
        )
    revisions = sorted((*others, revision), key=lambda known: known.reference.revision)
    return replace(current, retired=False, revisions=tuple(revisions))


def set_alias(current: TaskEvent | None, name: str, alias: str, revision: int) -> TaskEvent:
    """Let `name:alias` mean a revision, whatever it meant before.

    Raises:
        UnknownTask: If the task was never registered.
        TaskIsRetired: If it no longer serves.
        BadAlias: If the alias is not a name, or the task has as many as an event can hold.
        UnknownRevision: If the task has no such revision.
    """
    current = _registered(current, name)
    if current.retired:
        raise TaskIsRetired(f"{name} is retired: add it again before naming its revisions")
    if not _ALIAS.match(alias):
        raise BadAlias(
            f"{alias[:100]!r} cannot be an alias: begin with a lower-case letter, then letters, "
            f"digits, '.', '_' and '-', at most 64"
        )
    known = [found.reference.revision for found in current.revisions]
    if revision not in known:
        raise UnknownRevision(f"{name} has no revision {revision}: choose one of {_list(known)}")
    aliases = dict(current.aliases) | {alias: revision}
    if len(aliases) > MAX_MAP_ITEMS:
        raise BadAlias(f"{name} has {MAX_MAP_ITEMS} aliases: give one of them another revision")
    return replace(current, aliases=tuple(sorted(aliases.items())))


def retire(current: TaskEvent | None, name: str) -> TaskEvent:
    """Take a task out of service; its queries are answered `TASK_RETIRED`. Twice is as once.

    Raises:
        UnknownTask: If the task was never registered.
    """
    return replace(_registered(current, name), retired=True)


def _registered(current: TaskEvent | None, name: str) -> TaskEvent:
    if current is None:
        raise UnknownTask(f"no task {name!r} is registered: see `petstream tasks list`")
    return current


def _list(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))
