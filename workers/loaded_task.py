"""A task's level in memory, ready to run."""

from dataclasses import dataclass

from tasks.description import LevelDescription, TaskDescription
from workers.precision import Precision
from workers.task_ops import TaskOps


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class LoadedTask:
    """What the engine needs to run rows of a task; equal only to itself."""

    description: TaskDescription
    level: LevelDescription
    ops: TaskOps
    backbone_digest: str
    """Of the backbone that `ops` were laid out for."""
    precision: Precision = "float32"
    """What its rows are computed in."""

    @property
    def num_bytes(self) -> int:
        """What its tensors occupy."""
        return self.ops.num_bytes
