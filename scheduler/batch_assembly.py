"""From planned rows to batch messages that fit their topic."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from messages.batch import Batch, BatchRow
from messages.batch_codec import encode_batch
from messages.encoded_message import EncodedMessage
from messages.errors import MessageError, Reason
from messages.original_record import OriginalRecord
from messages.task_event import TaskReference
from scheduler.rows import PendingRow, Refusal

PLAN_VERSION = 1
"""Part of every batch id: raise it when equal rows would be planned otherwise."""


@dataclass(frozen=True, slots=True)
class BatchHeading:
    """What the batches of one level in one window have in common."""

    level: int
    backbone: str
    policy: str
    created_ms: int
    schedule_ms: float
    """From the beginning of the window's processing to `created_ms`."""


@dataclass(frozen=True, slots=True)
class EncodedBatch:
    """A batch message, and the share of the planned batch's rows that it holds."""

    message: EncodedMessage
    row_share: float


def encode_within(
    rows: Sequence[PendingRow], heading: BatchHeading, max_bytes: int
) -> Iterator[EncodedBatch | Refusal]:
    """Encode rows as one batch, or as several where one message would be too large.

    Args:
        rows: Rows of one task stand together; at least one.
        heading: The rest of the batch.
        max_bytes: Of one message's value.

    Yields:
        Batches that together hold every row, but for rows that no message can hold: those are
        yielded as refusals.
    """
    stack = [rows]
    while stack:
        part = stack.pop()
        try:
            message = encode_batch(assemble(part, heading))
            if len(message.value) > max_bytes:
                detail = f"does not fit a batch of {max_bytes} bytes"
                raise MessageError(Reason.PAYLOAD_TOO_LARGE, detail)
        except MessageError as error:
            if len(part) == 1:
                yield part[0].refused(error.reason, error.detail, "schedule")
            else:
                half = len(part) // 2
                stack += [part[half:], part[:half]]
        else:
            yield EncodedBatch(message, len(part) / len(rows))


def assemble(rows: Sequence[PendingRow], heading: BatchHeading) -> Batch:
    """Make the batch of these rows."""
    scheduled = (f"schedule_l{heading.level}", heading.schedule_ms)
    tasks: dict[TaskReference, int] = {}
    return Batch(
        batch_id=batch_id(rows, heading.level),
        level=heading.level,
        backbone=heading.backbone,
        policy=heading.policy,
        created_ms=heading.created_ms,
        rows=tuple(
            BatchRow(
                row.origin,
                row.query_id,
                tasks.setdefault(row.task, len(tasks)),
                row.token_ids,
                row.text,
                row.text_pair,
                row.parameters,
                row.reply,
                OriginalRecord(row.record.value or b"", row.record.headers),
                row.input_digest,
                row.appended_ms,
                row.deadline_ms,
                (*row.timings_ms, scheduled),
                row.small_output,
                row.attempt,
            )
            for row in rows
        ),
        tasks=tuple(tasks),
    )


def batch_id(rows: Sequence[PendingRow], level: int) -> str:
    """Name a batch by what is in it: the same rows planned again get the same id."""
    digest = blake2b(b"%d/%d" % (PLAN_VERSION, level), digest_size=16)
    origins = sorted(f"{row.origin.topic_id}/{row.origin}" for row in rows)
    digest.update("\n".join(origins).encode())
    return digest.hexdigest()
