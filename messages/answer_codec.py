"""Answers to bytes and back. An answer comes in the encoding of its query."""

from math import isfinite
from typing import Annotated, Any

from pydantic import Field

from messages import cloudevents
from messages.digest import DIGEST_BYTES
from messages.encoded_message import EncodedMessage
from messages.errors import MAX_DETAIL_CHARS, ErrorAnswer, MessageError, Reason, status_of
from messages.headers import (
    CONTENT_TYPE,
    ERROR_CODE,
    ID,
    JSON,
    KIND,
    MSGPACK,
    ORIGIN,
    TASK,
    Headers,
    origin_to_header,
    value_form,
)
from messages.limits import MAX_ANSWER_BYTES, MAX_ARRAY_ITEMS, MAX_DIMENSIONS
from messages.origin import Origin
from messages.reply import ReplyAddress
from messages.result import Result
from messages.schema import (
    VERSION,
    Attempt,
    Confidence,
    Level,
    Offset,
    Partition,
    Revision,
    TopicId,
    TopicName,
    WireModel,
    check_payload,
    validate_message,
)
from messages.strict_json import read_json, write_json
from messages.strict_msgpack import pack, pack_with_singles, read_msgpack

DOMAIN = "petstream"


class _OriginFields(WireModel):
    topic: TopicName
    topic_id: TopicId
    partition: Partition
    offset: Offset


class _AnswerFields(WireModel):
    id: Annotated[str, Field(max_length=64)]
    task: Annotated[str, Field(max_length=129)]
    origin: _OriginFields
    timings_ms: dict[str, float]
    input_digest: Annotated[str, Field(pattern=rf"\A(?:[0-9a-f]{{{2 * DIGEST_BYTES}}})?\z")]
    attempt: Attempt


class _ResultFields(_AnswerFields):
    task_revision: Revision
    level: Level
    confidence: Confidence
    labels: list[str] | None = None
    scores: list[float] | None = None
    value: float | None = None
    tags: list[Annotated[list[int | str], Field(min_length=3, max_length=3)]] | None = None
    embedding: Annotated[list[float], Field(min_length=1, max_length=MAX_DIMENSIONS)] | None = None
    kept_tokens: Annotated[int, Field(ge=0)]
    batch_id: str


class _ErrorBody(WireModel):
    code: str
    status: int
    reason: str
    domain: str
    message: Annotated[str, Field(max_length=MAX_DETAIL_CHARS)]
    retryable: bool
    stage: str


class _ErrorFields(_AnswerFields):
    error: _ErrorBody


def encode_answer(answer: Result | ErrorAnswer, reply: ReplyAddress) -> EncodedMessage:
    """The value and headers of an answer's record; its key is `reply.key`.

    Raises:
        MessageError: A number of the answer is not finite.
    """
    if isinstance(answer, Result):
        _check_finite(answer)
    kind = "result" if isinstance(answer, Result) else "error"
    fields = _result_fields(answer) if isinstance(answer, Result) else _error_fields(answer)
    is_msgpack = reply.encoding == "msgpack"
    headers = [
        (CONTENT_TYPE, (MSGPACK if is_msgpack else JSON).encode()),
        (TASK, answer.task.encode()),
        (ID, answer.id.encode()),
        (ORIGIN, origin_to_header(answer.origin)),
        (KIND, kind.encode()),
    ]
    if isinstance(answer, ErrorAnswer):
        headers.append((ERROR_CODE, answer.reason.encode()))
    if reply.envelope == "cloudevents":
        headers.extend(cloudevents.answer_headers(kind, answer.task, answer.origin, reply.headers))
    headers.extend(pair for pair in reply.headers if pair[0] not in cloudevents.REQUEST_ONLY)
    return EncodedMessage(_packed(fields) if is_msgpack else write_json(fields), tuple(headers))


def decode_answer(value: bytes | None, headers: Headers) -> Result | ErrorAnswer:
    """The answer that a record of the results topic holds.

    Raises:
        MessageError: It does not hold one.
    """
    value = check_payload(value, MAX_ANSWER_BYTES)
    tree = _read(value, headers)
    if "error" in tree:
        return _error(validate_message(_ErrorFields, tree))
    return _result(validate_message(_ResultFields, tree))


def _read(value: bytes, headers: Headers) -> dict[str, Any]:
    content_type = MSGPACK
    for name, header in headers:
        if name == CONTENT_TYPE and header is not None:
            content_type = header.decode("ascii", "replace")
    form = value_form(content_type)
    if form == "json":
        return read_json(value, max_array_items=MAX_ARRAY_ITEMS)
    if form == "msgpack":
        return read_msgpack(value, max_array_items=MAX_ARRAY_ITEMS)
    raise MessageError(Reason.CONTENT_TYPE_UNSUPPORTED, "an answer is MessagePack or JSON")


def _packed(fields: dict[str, Any]) -> bytes:
    return pack_with_singles(fields, "embedding") if "embedding" in fields else pack(fields)


def _check_finite(result: Result) -> None:
    # MessagePack would carry them, and every reader would refuse the answer.
    numbers = (result.confidence, result.value or 0.0, *result.scores, *(result.embedding or ()))
    if not all(map(isfinite, numbers)):
        raise MessageError(Reason.NAN_OUTPUT, "the model's output is not finite")


def _result_fields(result: Result) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "v": VERSION,
        "id": result.id,
        "task": result.task,
        "task_revision": result.task_revision,
    }
    if result.tags is not None:
        fields["tags"] = result.tags
    elif result.value is not None:
        fields["value"] = result.value
    elif result.embedding is not None:
        fields["embedding"] = result.embedding
    else:
        fields["labels"] = result.labels
        fields["scores"] = result.scores
    fields["level"] = result.level
    fields["confidence"] = result.confidence
    fields["kept_tokens"] = result.kept_tokens
    fields["timings_ms"] = dict(result.timings_ms)
    fields["origin"] = _origin_fields(result.origin)
    fields["input_digest"] = result.input_digest.hex()
    fields["batch_id"] = result.batch_id
    fields["attempt"] = result.attempt
    return fields


def _error_fields(answer: ErrorAnswer) -> dict[str, Any]:
    status = status_of(answer.reason)
    return {
        "v": VERSION,
        "id": answer.id,
        "task": answer.task,
        "error": {
            "code": status.code,
            "status": status.http,
            "reason": answer.reason.value,
            "domain": DOMAIN,
            "message": answer.message[:MAX_DETAIL_CHARS],
            "retryable": status.retryable,
            "stage": answer.stage,
        },
        "timings_ms": dict(answer.timings_ms),
        "origin": _origin_fields(answer.origin),
        "input_digest": answer.input_digest.hex(),
        "attempt": answer.attempt,
    }


def _origin_fields(origin: Origin) -> dict[str, Any]:
    return {
        "topic": origin.topic,
        "topic_id": origin.topic_id,
        "partition": origin.partition,
        "offset": origin.offset,
    }


def _origin(fields: _OriginFields) -> Origin:
    return Origin(fields.topic, fields.topic_id, fields.partition, fields.offset)


def _result(fields: _ResultFields) -> Result:
    labels, scores = fields.labels or [], fields.scores or []
    if len(labels) != len(scores):
        raise MessageError(Reason.BAD_FORMAT, "as many scores as labels expected")
    tags = None if fields.tags is None else tuple(_tag(tag) for tag in fields.tags)
    forms = (fields.labels, fields.value, tags, fields.embedding)
    if sum(form is not None for form in forms) > 1:
        raise MessageError(Reason.BAD_FORMAT, "one of labels, value, tags and embedding expected")
    return Result(
        id=fields.id,
        task=fields.task,
        task_revision=fields.task_revision,
        origin=_origin(fields.origin),
        level=fields.level,
        confidence=fields.confidence,
        labels=tuple(labels),
        scores=tuple(scores),
        value=fields.value,
        tags=tags,
        embedding=None if fields.embedding is None else tuple(fields.embedding),
        kept_tokens=fields.kept_tokens,
        timings_ms=tuple(fields.timings_ms.items()),
        input_digest=bytes.fromhex(fields.input_digest),
        batch_id=fields.batch_id,
        attempt=fields.attempt,
    )


def _tag(tag: list[int | str]) -> tuple[int, int, str]:
    match tag:
        case [int(start), int(end), str(label)] if 0 <= start <= end:
            return start, end, label
    raise MessageError(Reason.WRONG_TYPE, "a tag must be first character, end character, label")


def _error(fields: _ErrorFields) -> ErrorAnswer:
    body = fields.error
    try:
        reason = Reason(body.reason)
    except ValueError:
        reason = Reason.UNRECOGNISED
    return ErrorAnswer(
        id=fields.id,
        task=fields.task,
        origin=_origin(fields.origin),
        reason=reason,
        message=body.message,
        stage=body.stage,
        timings_ms=tuple(fields.timings_ms.items()),
        input_digest=bytes.fromhex(fields.input_digest),
        attempt=fields.attempt,
    )
