"""Escalations to bytes and back: one MessagePack map each."""

from itertools import pairwise
from typing import Annotated

from pydantic import Field

from messages.carried import (
    MAX_ECHOED,
    HeaderName,
    HeaderValue,
    InputDigest,
    Key,
    OriginalHeaderName,
    OriginalValue,
    OriginFields,
    ParameterTuple,
    ReferenceFields,
    Scores,
    Text,
    origin_to_wire,
    parameters_to_wire,
    reference_to_wire,
)
from messages.encoded_message import EncodedMessage
from messages.errors import MessageError, Reason
from messages.escalation import Escalation, SmallLevelOutput
from messages.headers import CONTENT_TYPE, KIND, MSGPACK
from messages.limits import (
    MAX_ARRAY_ITEMS,
    MAX_ESCALATION_BYTES,
    MAX_HEADERS,
    MAX_TEXT_CHARS,
)
from messages.origin import Origin
from messages.original_record import OriginalRecord
from messages.query import NO_PARAMETERS, QueryParameters
from messages.reply import CallerEnvelope, Encoding, ReplyAddress
from messages.schema import (
    VERSION,
    Attempt,
    Confidence,
    EpochMs,
    Level,
    Name,
    QueryId,
    TopicName,
    WireModel,
    check_payload,
    validate,
    validate_message,
)
from messages.strict_msgpack import pack, read_msgpack
from messages.task_event import TaskReference

_HEADERS = ((CONTENT_TYPE, MSGPACK.encode()), (KIND, b"escalation"))


class _EscalationFields(WireModel):
    origin: OriginFields
    query_id: QueryId
    task: ReferenceFields
    next_level: Level
    text: Text
    text_pair: Text | None
    kept_words: tuple[Annotated[int, Field(ge=0, lt=MAX_TEXT_CHARS)], ...] | None
    parameters: ParameterTuple | None
    reply: tuple[
        Key | None,
        Encoding,
        CallerEnvelope,
        TopicName | None,
        Annotated[tuple[tuple[HeaderName, HeaderValue], ...], Field(max_length=MAX_ECHOED)],
    ]
    original: tuple[
        OriginalValue,
        Annotated[
            tuple[tuple[OriginalHeaderName, HeaderValue | None], ...], Field(max_length=MAX_HEADERS)
        ],
    ]
    input_digest: InputDigest
    appended_ms: EpochMs
    deadline_ms: EpochMs | None
    timings_ms: Annotated[tuple[tuple[Name, float], ...], Field(max_length=32)]
    small_output: tuple[Level, Scores, Confidence, Name]
    attempt: Attempt


def encode_escalation(escalation: Escalation) -> EncodedMessage:
    """The value and headers of an escalation's record.

    Raises:
        MessageError: `decode_escalation` would refuse it, for the same reason.
    """
    reply = escalation.reply
    small = escalation.small_output
    fields = {
        "origin": origin_to_wire(escalation.origin),
        "query_id": escalation.query_id,
        "task": reference_to_wire(escalation.task),
        "next_level": escalation.next_level,
        "text": escalation.text,
        "text_pair": escalation.text_pair,
        "kept_words": escalation.kept_words,
        "parameters": parameters_to_wire(escalation.parameters),
        "reply": (reply.key, reply.encoding, reply.envelope, reply.topic, reply.headers),
        "original": (escalation.original.value, escalation.original.headers),
        "input_digest": escalation.input_digest,
        "appended_ms": escalation.appended_ms,
        "deadline_ms": escalation.deadline_ms,
        "timings_ms": escalation.timings_ms,
        "small_output": (small.level, small.scores, small.confidence, small.batch_id),
        "attempt": escalation.attempt,
    }
    _check_meaning(validate(_EscalationFields, fields))
    value = pack({"v": VERSION, **fields})
    return EncodedMessage(check_payload(value, MAX_ESCALATION_BYTES), _HEADERS)


def decode_escalation(value: bytes | None) -> Escalation:
    """The escalation that a record's value holds.

    Raises:
        MessageError: It does not hold one.
    """
    tree = read_msgpack(
        check_payload(value, MAX_ESCALATION_BYTES), max_array_items=MAX_ARRAY_ITEMS, arrays_as=tuple
    )
    fields = validate_message(_EscalationFields, tree)
    _check_meaning(fields)
    key, encoding, envelope, topic, headers = fields.reply
    parameters = fields.parameters
    return Escalation(
        origin=Origin(*fields.origin),
        query_id=fields.query_id,
        task=TaskReference(*fields.task),
        next_level=fields.next_level,
        text=fields.text,
        text_pair=fields.text_pair,
        kept_words=fields.kept_words,
        parameters=NO_PARAMETERS if parameters is None else QueryParameters(*parameters),
        reply=ReplyAddress(key, encoding, envelope, headers, topic),
        original=OriginalRecord(*fields.original),
        input_digest=fields.input_digest,
        appended_ms=fields.appended_ms,
        deadline_ms=fields.deadline_ms,
        timings_ms=fields.timings_ms,
        small_output=SmallLevelOutput(*fields.small_output),
        attempt=fields.attempt,
    )


def _check_meaning(fields: _EscalationFields) -> None:
    level, scores, _, _ = fields.small_output
    if len(scores) % 4:
        raise MessageError(Reason.BAD_FORMAT, "small_output: scores are not float32")
    if level >= fields.next_level:
        raise MessageError(Reason.OUT_OF_RANGE, "next_level must be above the level that escalated")
    kept = fields.kept_words
    if kept is not None and any(a >= b for a, b in pairwise(kept)):
        raise MessageError(Reason.BAD_FORMAT, "kept_words must ascend")
