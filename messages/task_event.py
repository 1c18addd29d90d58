"""Task events: what the compacted `tasks` topic says of each task. Key: the task's name.

A record holds the whole state of one task name, so the newest record of a key is enough.
"""

from dataclasses import dataclass
from typing import Literal

from messages.truncation import Truncation

TaskKind = Literal["single_label", "multi_label", "regression", "tagging", "embedding"]


@dataclass(frozen=True, slots=True)
class TaskReference:
    """The exact weights to run a row with."""

    name: str
    revision: int
    digest: str
    """`sha256:<hex>` of the artifact's description (`task.json`), which pins its weight files."""


@dataclass(frozen=True, slots=True)
class TaskLevel:
    """What scheduling needs to know of one level of one revision."""

    level: int
    backbone: str
    pet_kind: str
    max_tokens: int
    truncation: Truncation = "head"


@dataclass(frozen=True, slots=True)
class TaskRevision:
    """One published revision of a task."""

    reference: TaskReference
    kind: TaskKind
    num_outputs: int
    """Labels of the task; of an embedding the dimensions of its vectors."""
    takes_pair: bool
    levels: tuple[TaskLevel, ...]
    """Ascending by level; a query starts at the first."""


@dataclass(frozen=True, slots=True)
class TaskEvent:
    """The state of one task name."""

    name: str
    retired: bool
    revisions: tuple[TaskRevision, ...]
    """Ascending; the last is the default."""
    aliases: tuple[tuple[str, int], ...] = ()
    """(alias, revision), so that `name:alias` can be asked for."""
