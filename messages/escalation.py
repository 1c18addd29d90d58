"""An escalation: a query the small level was not sure of, on its way to the large level."""

from dataclasses import dataclass

from messages.origin import Origin
from messages.original_record import OriginalRecord
from messages.query import QueryParameters
from messages.reply import ReplyAddress
from messages.task_event import TaskReference


@dataclass(frozen=True, slots=True)
class SmallLevelOutput:
    """The calibrated output of the level that escalated."""

    level: int
    scores: bytes
    """Calibrated scores, little-endian float32: one for each label, or one value; or none, where
    the next level takes nothing over (tagging)."""
    confidence: float
    batch_id: str


@dataclass(frozen=True, slots=True)
class Escalation:
    """A query re-routed to the next level, with what was learnt about it so far."""

    origin: Origin
    query_id: str
    task: TaskReference
    next_level: int
    text: str
    text_pair: str | None
    kept_words: tuple[int, ...] | None
    """Indices of the words kept by pruning; None: nothing was pruned."""
    parameters: QueryParameters
    reply: ReplyAddress
    original: OriginalRecord
    input_digest: bytes
    appended_ms: int
    deadline_ms: int | None
    timings_ms: tuple[tuple[str, float], ...]
    small_output: SmallLevelOutput
    attempt: int = 1
