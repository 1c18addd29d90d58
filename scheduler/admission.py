"""From an input record to a row or a refusal: decoding, resolving the task, validating.

Whatever a query's record holds, exactly one of both comes out, and nothing is raised. An escalation
of another major version is not decided on: the process must stop, or its query would be lost.
"""

import logging
from collections.abc import Collection

from messages.errors import ErrorAnswer, MessageError, Reason, SchemaUnsupported
from messages.escalation_codec import decode_escalation
from messages.limits import MAX_TTL_MS
from messages.origin import Origin
from messages.query_codec import IncomingQuery, decode_query
from messages.reply_salvage import salvage_reply
from scheduler.registry import TaskDirectory
from scheduler.rows import PendingRow, Refusal
from scheduler.validation import TextLimits, check_deadline, check_texts, starting_level
from transport.errors import VersionMismatch
from transport.records import Record, published_record

logger = logging.getLogger(__name__)


class Admission:
    """Decides on records of both inputs."""

    def __init__(
        self,
        directory: TaskDirectory,
        *,
        levels: Collection[int],
        topic_id: str = "",
        text_limits: TextLimits | None = None,
        reply_topics: Collection[str] | None = None,
    ) -> None:
        """Make an admission.

        Args:
            directory: The tasks there are.
            levels: Levels that have a pool.
            topic_id: The broker's id of the query topic, part of every origin.
            text_limits: None: the defaults.
            reply_topics: Topics that callers may choose for their answers; None: a wish for one
                is ignored.
        """
        self._directory = directory
        self._levels = frozenset(levels)
        self._topic_id = topic_id
        self._text_limits = text_limits or TextLimits()
        self._reply_topics = reply_topics

    def admit_query(self, record: Record, now_ms: float) -> PendingRow | Refusal:
        """Decide on a record of the query topic."""
        origin = Origin(record.topic, self._topic_id, record.partition, record.offset)
        try:
            if record.corrupt is not None:
                raise MessageError(Reason.CORRUPT_RECORD, "the broker's copy cannot be read")
            if record.bad_header is not None:
                raise MessageError(Reason.BAD_HEADER, record.bad_header)
            incoming = decode_query(
                record.value,
                record.key,
                record.headers,
                partition=record.partition,
                offset=record.offset,
                reply_topics=self._reply_topics,
            )
        except MessageError as error:
            return _undecoded(record, origin, error)
        try:
            return self._query_row(record, origin, incoming, now_ms)
        except MessageError as error:
            answer = ErrorAnswer(
                id=incoming.query.id,
                task=incoming.query.task,
                origin=origin,
                reason=error.reason,
                message=error.detail,
                stage="validate",
                input_digest=incoming.input_digest,
            )
            return Refusal(record, answer, incoming.reply)

    def admit_escalation(self, record: Record, now_ms: float) -> PendingRow | Refusal:
        """Decide on a record of the escalation topic, which only workers write.

        Raises:
            VersionMismatch: If a worker of another major version wrote it.
        """
        try:
            if record.corrupt is not None:
                raise MessageError(Reason.CORRUPT_RECORD, "the broker's copy cannot be read")
            escalation = decode_escalation(record.value)
        except SchemaUnsupported as error:
            raise VersionMismatch(record.source, record.offset, error.version) from error
        except MessageError as error:
            logger.error("escalation %s/%s is invalid: %s", record.source, record.offset, error)
            origin = Origin(record.topic, "", record.partition, record.offset)
            answer = ErrorAnswer("", "", origin, error.reason, error.detail, "decode")
            return Refusal(record, answer, reply=None)
        query_record = published_record(
            escalation.origin,
            escalation.reply.key,
            escalation.original,
            escalation.appended_ms,
        )
        timings_ms = (
            *escalation.timings_ms,
            _queued(escalation.next_level, record.appended_ms, now_ms),
        )
        try:
            revision = self._directory.pinned(escalation.task)
            level = starting_level(revision, escalation.next_level, self._levels)
            check_deadline(escalation.deadline_ms, now_ms)
        except MessageError as error:
            answer = ErrorAnswer(
                id=escalation.query_id,
                task=escalation.task.name,
                origin=escalation.origin,
                reason=error.reason,
                message=error.detail,
                stage="validate",
                timings_ms=timings_ms,
                input_digest=escalation.input_digest,
                attempt=escalation.attempt,
            )
            return Refusal(query_record, answer, escalation.reply)
        return PendingRow(
            query_record,
            escalation.origin,
            escalation.query_id,
            escalation.task,
            level,
            escalation.text,
            escalation.text_pair,
            escalation.kept_words,
            escalation.parameters,
            escalation.reply,
            escalation.input_digest,
            escalation.appended_ms,
            escalation.deadline_ms,
            timings_ms,
            escalation.small_output,
            escalation.attempt,
        )

    def _query_row(
        self, record: Record, origin: Origin, incoming: IncomingQuery, now_ms: float
    ) -> PendingRow:
        query = incoming.query
        revision = self._directory.resolve(query.task)
        check_texts(query.text, query.text_pair, revision, self._text_limits)
        level = starting_level(revision, query.parameters.level, self._levels)
        deadline_ms = query.deadline_ms(record.appended_ms)
        check_deadline(deadline_ms, now_ms)
        return PendingRow(
            record,
            origin,
            query.id,
            revision.reference,
            level,
            query.text,
            query.text_pair,
            None,
            query.parameters,
            incoming.reply,
            incoming.input_digest,
            max(0, record.appended_ms),
            deadline_ms,
            (_queued(level.level, record.appended_ms, now_ms),),
            None,
            1,
        )


def _queued(level: int, appended_ms: int, now_ms: float) -> tuple[str, float]:
    """Return the hop from topic to window; clocks of two machines may differ, so it is bounded."""
    return f"queue_l{level}", min(max(0.0, now_ms - appended_ms), float(MAX_TTL_MS))


def _undecoded(record: Record, origin: Origin, error: MessageError) -> Refusal:
    salvaged = salvage_reply(record.value, record.key, record.headers)
    answer = ErrorAnswer(
        id=salvaged.id or f"{record.partition}-{record.offset}",
        task=salvaged.task,
        origin=origin,
        reason=error.reason,
        message=error.detail,
        stage="decode",
    )
    return Refusal(record, answer, salvaged.reply)
