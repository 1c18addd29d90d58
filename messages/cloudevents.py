"""CloudEvents 1.0 over Kafka: attributes of a request in, attributes of its answer out.

Binary mode (attributes in `ce_` headers) both ways; structured JSON is understood and answered in
binary mode. Requests and answers differ in type and source, so that an answer that is fed back as
a query is refused instead of going round for ever.
"""

import base64
import binascii
import re
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID, uuid5

from messages.errors import MessageError, Reason
from messages.headers import CLOUDEVENT_PREFIX, CONTENT_TYPE
from messages.limits import MAX_HEADERS, MAX_HEADERS_BYTES, MAX_QUERY_ARRAY_ITEMS
from messages.origin import Origin
from messages.strict_json import read_json, write_json

REQUEST_TYPE = "dev.petstream.inference.request.v1"
REQUEST_ONLY = frozenset({"ce_id", "ce_subject"})
"""Kept of a request for `answer_headers`, but not echoed under their own names."""
RESULT_TYPE = "dev.petstream.inference.result.v1"
ERROR_TYPE = "dev.petstream.inference.error.v1"
_ANY_REQUEST = re.compile(r"dev\.petstream\.inference\.request\.v(.*)")
_ANSWER_SOURCE = "/petstream/"
_RESULT_IDS = UUID("6c3f6f0e-3c39-5d43-9a0e-0d2c6b3ad0a5")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ATTRIBUTE_NAME = re.compile("[a-z0-9]{1,40}")
_RFC_3339 = re.compile(
    r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)


class StructuredEvent(NamedTuple):
    """A structured CloudEvent taken apart as if it had come in binary mode."""

    attributes: dict[str, str]
    """By header name, `ce_...`, and `content-type`."""
    data: bytes


def is_cloudevent(read: dict[str, str]) -> bool:
    """Whether a record with these headers claims to be a CloudEvent in binary mode."""
    return "ce_specversion" in read


def check_request(read: dict[str, str]) -> None:
    """Check the attributes of a request.

    Raises:
        MessageError: A required one is missing, the version is not 1.0, or this is an answer.
    """
    if read["ce_specversion"] != "1.0":
        raise MessageError(Reason.SCHEMA_UNSUPPORTED, "ce_specversion must be 1.0")
    for name in ("ce_id", "ce_source", "ce_type"):
        if not read.get(name):
            raise MessageError(Reason.BAD_HEADER, f"a CloudEvent needs {name}")
    kind = read["ce_type"]
    if kind in (RESULT_TYPE, ERROR_TYPE) or read["ce_source"].startswith(_ANSWER_SOURCE):
        raise MessageError(Reason.BAD_HEADER, "this CloudEvent is an answer, not a query")
    ours = _ANY_REQUEST.fullmatch(kind)
    if ours is not None and ours[1] != "1":
        raise MessageError(Reason.SCHEMA_UNSUPPORTED, f"ce_type must be {REQUEST_TYPE}")


def request_headers(
    query_id: str, task: str, source: str, expires_at_ms: int | None
) -> tuple[tuple[str, bytes], ...]:
    """The attributes of a request, as headers.

    Raises:
        MessageError: `source` is not printable, or is kept for answers.
    """
    if not source.isprintable() or not source or source.startswith(_ANSWER_SOURCE):
        raise MessageError(Reason.BAD_HEADER, f"ce_source must not begin with {_ANSWER_SOURCE}")
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", query_id.encode()),
        ("ce_source", source.encode()),
        ("ce_type", REQUEST_TYPE.encode()),
        ("ce_subject", task.encode()),
    ]
    if expires_at_ms is not None:
        headers.append(("ce_expirytime", _format_time(expires_at_ms).encode()))
    return tuple(headers)


def answer_headers(
    kind: str, task: str, origin: Origin, echoed: tuple[tuple[str, bytes], ...]
) -> list[tuple[str, bytes]]:
    """The attributes that make an answer an event of its own, as headers.

    Its id is made of the query's origin: the same after a replay, different for two queries.

    Args:
        kind: `result` or `error`.
        task: The subject where the query had none.
        origin: Of the query.
        echoed: Headers of the query that its `ReplyAddress` kept.
    """
    result_id = uuid5(_RESULT_IDS, f"{origin.topic_id}/{origin}")
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", str(result_id).encode()),
        ("ce_source", f"{_ANSWER_SOURCE}{origin.topic}".encode()),
        ("ce_type", (RESULT_TYPE if kind == "result" else ERROR_TYPE).encode()),
    ]
    of_request = dict(echoed)
    headers.append(("ce_subject", of_request.get("ce_subject", task.encode())))
    if "ce_id" in of_request:
        headers.append(("ce_causationid", of_request["ce_id"]))
    return headers


def expires_at_ms(read: dict[str, str]) -> int | None:
    """The deadline that `ce_expirytime` sets, in milliseconds since 1970.

    Raises:
        MessageError: It is not an RFC 3339 time.
    """
    text = read.get("ce_expirytime")
    if text is None:
        return None
    malformed = MessageError(Reason.BAD_HEADER, "ce_expirytime is not an RFC 3339 time")
    if _RFC_3339.fullmatch(text) is None:
        raise malformed
    try:
        moment = datetime.fromisoformat(text.upper())
        return (moment - _EPOCH) // timedelta(milliseconds=1)
    except (ValueError, OverflowError) as error:
        raise malformed from error


def open_structured(value: bytes) -> StructuredEvent:
    """Take a structured JSON CloudEvent apart.

    Raises:
        MessageError: It is not one.
    """
    event = read_json(value, max_array_items=MAX_QUERY_ARRAY_ITEMS)
    data = _data_of(event)
    attributes = {
        CLOUDEVENT_PREFIX + name: _attribute(name, attribute)
        for name, attribute in event.items()
        if name not in ("data", "data_base64") and attribute is not None
    }
    num_bytes = sum(len(name) + 4 * len(text) for name, text in attributes.items())
    if len(attributes) > MAX_HEADERS or num_bytes > MAX_HEADERS_BYTES:
        raise MessageError(Reason.HEADERS_TOO_LARGE, "the CloudEvent's attributes are too large")
    if "ce_specversion" not in attributes:
        raise MessageError(Reason.MISSING_FIELD, "specversion")
    attributes[CONTENT_TYPE] = attributes.pop("ce_datacontenttype", "application/json")
    return StructuredEvent(attributes, data)


def _attribute(name: str, value: object) -> str:
    if _ATTRIBUTE_NAME.fullmatch(name) is None:
        raise MessageError(Reason.BAD_FORMAT, "a CloudEvent attribute's name is malformed")
    if isinstance(value, bool | int):
        return str(value).lower()
    if not isinstance(value, str):
        raise MessageError(Reason.WRONG_TYPE, "a CloudEvent attribute is not a string")
    if not value.isprintable():
        raise MessageError(Reason.BAD_FORMAT, "a CloudEvent attribute has control characters")
    return value


def _data_of(event: dict[str, Any]) -> bytes:
    if "data_base64" in event:
        if "data" in event:
            raise MessageError(Reason.UNKNOWN_FIELD, "both data and data_base64")
        encoded = event["data_base64"]
        if not isinstance(encoded, str):
            raise MessageError(Reason.WRONG_TYPE, "data_base64 is not a string")
        try:
            return base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError) as error:
            raise MessageError(Reason.BAD_ENCODING, "data_base64 is not base64") from error
    data = event.get("data")
    if data is None:
        raise MessageError(Reason.MISSING_FIELD, "data")
    if isinstance(data, str):
        try:
            return data.encode()
        except UnicodeEncodeError as error:
            raise MessageError(Reason.INVALID_UTF8, "data is not valid Unicode") from error
    try:
        return write_json(data)
    except RecursionError as error:
        raise MessageError(Reason.TOO_DEEP, "nested too deep") from error


def _format_time(epoch_ms: int) -> str:
    moment = _EPOCH + timedelta(milliseconds=epoch_ms)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{epoch_ms % 1_000:03d}Z"
