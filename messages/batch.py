"""A macro-batch: rows of several tasks that one worker runs in one pass over the backbone.

It is self-contained: a worker needs no other topic to run it.
"""

from dataclasses import dataclass

from messages.escalation import SmallLevelOutput
from messages.origin import Origin
from messages.original_record import OriginalRecord
from messages.query import QueryParameters
from messages.reply import ReplyAddress
from messages.task_event import TaskReference


@dataclass(frozen=True, slots=True)
class BatchRow:
    """One query within a macro-batch, tokenised for the batch's backbone."""

    origin: Origin
    query_id: str
    task_index: int
    """Index into `Batch.tasks`."""
    token_ids: bytes
    """Token ids with the special tokens, as little-endian uint32."""
    text: str
    text_pair: str | None
    parameters: QueryParameters
    reply: ReplyAddress
    original: OriginalRecord
    input_digest: bytes
    """8 bytes of BLAKE2b over the query's text (and pair)."""
    appended_ms: int
    """Broker's append time of the query, milliseconds since 1970."""
    deadline_ms: int | None = None
    """Wall-clock milliseconds since 1970; None: no deadline."""
    timings_ms: tuple[tuple[str, float], ...] = ()
    """Time spent in each hop so far, for the answer's `timings_ms`."""
    small_output: SmallLevelOutput | None = None
    """Set on escalated rows: what the small level answered, to be ensembled with."""
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Batch:
    """A macro-batch for the pool of one level. Rows of one task stand together."""

    batch_id: str
    level: int
    backbone: str
    policy: str
    """The policy that planned it, for `explain`."""
    created_ms: int
    tasks: tuple[TaskReference, ...]
    rows: tuple[BatchRow, ...]
