"""What becomes of an input record: a row on its way into a batch, or a refusal."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from messages.errors import ErrorAnswer, Reason
from messages.escalation import SmallLevelOutput
from messages.origin import Origin
from messages.query import QueryParameters
from messages.reply import ReplyAddress
from messages.task_event import TaskLevel, TaskReference
from scheduler.planning import PlanRows
from scheduler.tokenisation import TOKEN_ID_BYTES
from transport.records import Record


@dataclass(slots=True)
class PendingRow:
    """One admitted query or escalation, to be tokenised and planned."""

    record: Record
    """The query's record, whose raw bytes are kept if the row is refused after all."""
    origin: Origin
    query_id: str
    task: TaskReference
    level: TaskLevel
    text: str
    text_pair: str | None
    kept_words: tuple[int, ...] | None
    parameters: QueryParameters
    reply: ReplyAddress
    input_digest: bytes
    appended_ms: int
    deadline_ms: int | None
    timings_ms: tuple[tuple[str, float], ...]
    """With the time until this window."""
    small_output: SmallLevelOutput | None
    attempt: int
    token_ids: bytes = b""
    """Empty until tokenised."""

    def refused(self, reason: Reason, message: str, stage: str) -> "Refusal":
        """Return this row as a refusal."""
        answer = ErrorAnswer(
            id=self.query_id,
            task=self.task.name,
            origin=self.origin,
            reason=reason,
            message=message,
            stage=stage,
            timings_ms=self.timings_ms,
            input_digest=self.input_digest,
            attempt=self.attempt,
        )
        return Refusal(self.record, answer, self.reply)


@dataclass(frozen=True, slots=True)
class Refusal:
    """An input record that is answered with an error and set aside with its raw bytes."""

    record: Record
    answer: ErrorAnswer
    reply: ReplyAddress | None
    """None: the record does not say whose query it was, so that nobody can be answered."""


def columns_of(rows: Sequence[PendingRow]) -> PlanRows:
    """Return what planning needs of tokenised rows of one level."""
    tasks: dict[TaskReference, int] = {}
    pet_kinds: list[str] = []
    task_index = np.empty(len(rows), np.int64)
    num_tokens = np.empty(len(rows), np.int64)
    for number, row in enumerate(rows):
        index = tasks.setdefault(row.task, len(tasks))
        if index == len(pet_kinds):
            pet_kinds.append(row.level.pet_kind)
        task_index[number] = index
        num_tokens[number] = len(row.token_ids) // TOKEN_ID_BYTES
    return PlanRows(task_index, num_tokens, tuple(pet_kinds))
