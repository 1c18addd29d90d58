"""Task events to bytes and back: JSON, so that any Kafka viewer shows what is registered."""

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field

from messages.encoded_message import EncodedMessage
from messages.errors import MessageError, Reason
from messages.headers import CONTENT_TYPE, JSON, KIND
from messages.limits import MAX_ARRAY_ITEMS, MAX_DIMENSIONS, MAX_TASK_EVENT_BYTES, MAX_TOKENS
from messages.schema import (
    VERSION,
    Digest,
    Level,
    Name,
    Revision,
    TaskName,
    WireModel,
    check_payload,
    validate_message,
)
from messages.strict_json import read_json, write_json
from messages.task_event import (
    TaskEvent,
    TaskKind,
    TaskLevel,
    TaskReference,
    TaskRevision,
)
from messages.truncation import Truncation

_HEADERS = ((CONTENT_TYPE, JSON.encode()), (KIND, b"task"))


class _LevelFields(WireModel):
    level: Level
    backbone: Name
    pet_kind: Name
    max_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)]
    truncation: Truncation = "head"


class _RevisionFields(WireModel):
    revision: Revision
    digest: Digest
    kind: TaskKind
    num_labels: Annotated[int, Field(ge=1, le=MAX_ARRAY_ITEMS)] | None = None
    dimensions: Annotated[int, Field(ge=1, le=MAX_DIMENSIONS)] | None = None
    takes_pair: bool
    levels: Annotated[list[_LevelFields], Field(min_length=1, max_length=8)]


class _TaskEventFields(WireModel):
    name: TaskName
    retired: bool
    revisions: Annotated[list[_RevisionFields], Field(min_length=1, max_length=4_096)]
    aliases: dict[TaskName, Revision]


def encode_task_event(event: TaskEvent) -> EncodedMessage:
    """The value and headers of a task event's record; its key is the task's name."""
    fields = {
        "v": VERSION,
        "name": event.name,
        "retired": event.retired,
        "revisions": [
            {
                "revision": revision.reference.revision,
                "digest": revision.reference.digest,
                "kind": revision.kind,
                _outputs_name(revision.kind): revision.num_outputs,
                "takes_pair": revision.takes_pair,
                "levels": [_level(level) for level in revision.levels],
            }
            for revision in event.revisions
        ],
        "aliases": dict(event.aliases),
    }
    return EncodedMessage(write_json(fields), _HEADERS)


def _outputs_name(kind: TaskKind) -> Literal["num_labels", "dimensions"]:
    """Return under which name a revision says how many outputs it has."""
    return "dimensions" if kind == "embedding" else "num_labels"


def _level(level: TaskLevel) -> dict[str, str | int]:
    fields: dict[str, str | int] = {
        "level": level.level,
        "backbone": level.backbone,
        "pet_kind": level.pet_kind,
        "max_tokens": level.max_tokens,
    }
    # Left out where it is the default: readers of before it was there know only that.
    return fields if level.truncation == "head" else {**fields, "truncation": level.truncation}


def decode_task_event(value: bytes | None) -> TaskEvent:
    """The task event that a record's value holds.

    Raises:
        MessageError: It does not hold one, or it contradicts itself.
    """
    value = check_payload(value, MAX_TASK_EVENT_BYTES)
    fields = validate_message(_TaskEventFields, read_json(value, max_array_items=MAX_ARRAY_ITEMS))
    revisions = tuple(_revision(fields.name, revision) for revision in fields.revisions)
    numbers = [revision.reference.revision for revision in revisions]
    if any(a >= b for a, b in pairwise(numbers)):
        raise MessageError(Reason.BAD_FORMAT, "revisions must ascend")
    if not set(fields.aliases.values()) <= set(numbers):
        raise MessageError(Reason.BAD_FORMAT, "an alias names a revision that is not there")
    return TaskEvent(fields.name, fields.retired, revisions, tuple(fields.aliases.items()))


def _revision(name: str, fields: _RevisionFields) -> TaskRevision:
    levels = tuple(
        TaskLevel(level.level, level.backbone, level.pet_kind, level.max_tokens, level.truncation)
        for level in fields.levels
    )
    if any(a.level >= b.level for a, b in pairwise(levels)):
        raise MessageError(Reason.BAD_FORMAT, "levels must ascend")
    return TaskRevision(
        TaskReference(name, fields.revision, fields.digest),
        fields.kind,
        _num_outputs(fields),
        fields.takes_pair,
        levels,
    )


def _num_outputs(fields: _RevisionFields) -> int:
    wanted, other = fields.num_labels, fields.dimensions
    if fields.kind == "embedding":
        wanted, other = other, wanted
    name = _outputs_name(fields.kind)
    if wanted is None:
        raise MessageError(Reason.MISSING_FIELD, f"revisions.{name}: Field required")
    if other is not None:
        raise MessageError(Reason.BAD_FORMAT, f"of {fields.kind} only {name} is said")
    return wanted
