"""Record headers: the names, and reading those of a query with hard limits.

A header is either *read* (it steers us; then it must be unique and printable), *echoed* (the
caller's correlation or tracing; copied byte for byte into the answer, repeated or not), or
ignored.
"""

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

from messages.errors import MessageError, Reason
from messages.limits import MAX_HEADERS, MAX_HEADERS_BYTES
from messages.origin import Origin

Headers = Sequence[tuple[str, bytes | None]]
"""As Kafka clients give them. A header without a value counts as absent."""

CONTENT_TYPE = "content-type"
TASK = "task"
VERSION = "petstream-version"
ID = "petstream-id"
ORIGIN = "petstream-origin"
KIND = "petstream-kind"
ERROR_CODE = "petstream-error-code"

MSGPACK = "application/msgpack"
JSON = "application/json"
TEXT = "text/plain"
STRUCTURED_CLOUDEVENT = "application/cloudevents+json"

ValueForm = Literal["msgpack", "json", "text", "structured"]

_VALUE_FORMS: dict[str, ValueForm] = {
    MSGPACK: "msgpack",
    "application/x-msgpack": "msgpack",
    "application/vnd.msgpack": "msgpack",
    JSON: "json",
    TEXT: "text",
    STRUCTURED_CLOUDEVENT: "structured",
}

CLOUDEVENT_PREFIX = "ce_"
_READ = frozenset({CONTENT_TYPE, TASK, VERSION})

ECHOED = frozenset(
    {
        "kafka_correlationId",  # Spring: any bytes, 16 raw UUID bytes by default
        "REPLY_CORRELATION_ID",  # SmallRye, Quarkus
        "correlation_id",  # FastStream
        "zilla:correlation-id",
        "ce_correlationid",
        "ce_id",
        "ce_subject",
        "ce_partitionkey",
        "traceparent",
        "tracestate",
        "baggage",
        "ce_traceparent",
        "ce_tracestate",
    }
)
# Not echoed: reply topics and partitions. A FastStream consumer of the answers would take an
# echoed `reply_to` as an order to answer the answer.
REPLY_TOPICS = ("kafka_replyTopic", "REPLY_TOPIC", "reply_to", "ce_replyto", "zilla:reply-to")

_ORIGIN_FORM = re.compile(
    rb"([A-Za-z0-9._-]{1,249})/([A-Za-z0-9_-]{0,22})/([0-9]{1,10})/([0-9]{1,19})"
)


class QueryHeaders(NamedTuple):
    """The headers of a query's record, sorted by what they are for."""

    read: dict[str, str]
    """`content-type`, `task`, `petstream-version` and every `ce_` header."""
    echoed: tuple[tuple[str, bytes], ...]
    reply_topics: tuple[bytes, ...]


def read_headers(headers: Headers) -> QueryHeaders:
    """Sort a query's headers.

    Raises:
        MessageError: They are too many or too large, one that is read comes twice or is not
            printable UTF-8, or a name is not text.
    """
    if len(headers) > MAX_HEADERS:
        raise MessageError(Reason.HEADERS_TOO_LARGE, f"more than {MAX_HEADERS} headers")
    read: dict[str, str] = {}
    echoed: list[tuple[str, bytes]] = []
    reply_topics: list[bytes] = []
    num_bytes = 0
    for name, value in headers:
        if type(name) is not str:
            raise MessageError(Reason.BAD_HEADER, "a header's name is not text")
        if value is not None and type(value) is not bytes:
            raise MessageError(Reason.BAD_HEADER, "a header's value is not bytes")
        num_bytes += len(name) + len(value or b"")
        if num_bytes > MAX_HEADERS_BYTES:
            raise MessageError(
                Reason.HEADERS_TOO_LARGE, f"headers of more than {MAX_HEADERS_BYTES} bytes"
            )
        if value is None:
            continue
        if name in ECHOED:
            echoed.append((name, value))
        if name in _READ or name.startswith(CLOUDEVENT_PREFIX):
            if name in read:
                raise MessageError(Reason.BAD_HEADER, "a header that steers comes twice")
            read[name] = printable(value)
        if name in REPLY_TOPICS:
            reply_topics.append(value)
    return QueryHeaders(read, tuple(echoed), tuple(reply_topics))


def with_attributes(received: QueryHeaders, attributes: dict[str, str]) -> QueryHeaders:
    """`received` with a structured event's attributes as if they had come as headers.

    Args:
        received: The headers of the record.
        attributes: By header name; they win over headers.
    """
    carried = [(name, value.encode()) for name, value in attributes.items()]
    return QueryHeaders(
        {**received.read, **attributes},
        received.echoed + tuple(pair for pair in carried if pair[0] in ECHOED),
        received.reply_topics + tuple(value for name, value in carried if name in REPLY_TOPICS),
    )


def printable(value: bytes) -> str:
    """A header's value as text.

    Raises:
        MessageError: It is not UTF-8, or holds control characters.
    """
    try:
        text = value.decode()
    except UnicodeDecodeError as error:
        raise MessageError(Reason.BAD_HEADER, "a header is not valid UTF-8") from error
    if not text.isprintable():
        raise MessageError(Reason.BAD_HEADER, "a header holds control characters")
    return text


def value_form(content_type: str) -> ValueForm:
    """How a value of `content_type` is read.

    Raises:
        MessageError: It is a type that is not spoken here.
    """
    form = _VALUE_FORMS.get(content_type)
    if form is None:
        media_type, _, parameters = content_type.lower().partition(";")
        form = _VALUE_FORMS.get(media_type.strip())
        charset = parameters.partition("charset=")[2].strip(' "')
        if charset not in ("", "utf-8", "utf8", "us-ascii"):
            raise MessageError(Reason.CONTENT_TYPE_UNSUPPORTED, "charset must be utf-8")
    if form is None:
        raise MessageError(
            Reason.CONTENT_TYPE_UNSUPPORTED, f"content-type must be {MSGPACK}, {JSON} or {TEXT}"
        )
    return form


def origin_to_header(origin: Origin) -> bytes:
    """`<topic>/<topic id>/<partition>/<offset>`, the value of `petstream-origin`."""
    return f"{origin.topic}/{origin.topic_id}/{origin.partition}/{origin.offset}".encode()


def origin_from_header(value: bytes) -> Origin:
    """The origin that `petstream-origin` names: de-duplication without decoding a value.

    Raises:
        MessageError: The header is malformed.
    """
    match = _ORIGIN_FORM.fullmatch(value)
    if match is None:
        raise MessageError(Reason.BAD_HEADER, "petstream-origin is malformed")
    topic, topic_id, partition, offset = match.groups()
    return Origin(topic.decode(), topic_id.decode(), int(partition), int(offset))
