"""Queries to bytes and back: MessagePack, JSON, bare text and CloudEvents."""

from collections.abc import Collection
from dataclasses import fields as fields_of
from typing import Any, NamedTuple

from messages import cloudevents
from messages.digest import input_digest
from messages.encoded_message import EncodedMessage
from messages.errors import MessageError, Reason
from messages.headers import (
    CONTENT_TYPE,
    JSON,
    MSGPACK,
    TASK,
    TEXT,
    VERSION,
    Headers,
    QueryHeaders,
    ValueForm,
    read_headers,
    value_form,
    with_attributes,
)
from messages.limits import MAX_KEY_BYTES, MAX_QUERY_ARRAY_ITEMS, MAX_QUERY_BYTES
from messages.query import NO_PARAMETERS, Query, QueryParameters
from messages.query_schema import check_query, validate_query
from messages.reply import CallerEnvelope, Encoding, ReplyAddress
from messages.schema import VERSION as SCHEMA_VERSION
from messages.schema import check_version, is_query_id
from messages.strict_json import read_json, write_json
from messages.strict_msgpack import pack, read_msgpack

DEFAULT_SOURCE = "urn:petstream:client"

_MSGPACK_BYTES = MSGPACK.encode()
_JSON_BYTES = JSON.encode()
_PARAMETER_NAMES = tuple(field.name for field in fields_of(QueryParameters))


class IncomingQuery(NamedTuple):
    """A valid query and how its answer must look."""

    query: Query
    reply: ReplyAddress
    input_digest: bytes
    """See `messages.digest`."""


def decode_query(
    value: bytes | None,
    key: bytes | None,
    headers: Headers,
    *,
    partition: int,
    offset: int,
    reply_topics: Collection[str] | None = None,
) -> IncomingQuery:
    """The query that a record holds.

    Args:
        value: The record's value.
        key: The record's key; the query's id where nothing else gives one.
        headers: The record's headers.
        partition: Where the record stood; makes the id where the key cannot.
        offset: Where the record stood in `partition`.
        reply_topics: Topics that a caller may choose for the answer. None: a wish for another
            topic is ignored and the answer goes where all answers go.

    Raises:
        MessageError: The record does not hold a valid query.
    """
    _check_sizes(value, key)
    if not value:
        raise MessageError(Reason.EMPTY_PAYLOAD, "the record has no value")
    received = read_headers(headers)
    envelope: CallerEnvelope = "native"
    form = _form(value, received.read)
    if form == "structured":
        attributes, value = cloudevents.open_structured(value)
        received = with_attributes(received, attributes)
        form = value_form(attributes[CONTENT_TYPE])
    read = received.read
    if cloudevents.is_cloudevent(read):
        cloudevents.check_request(read)
        envelope = "cloudevents"
    elif form == "text":
        envelope = "bare"
    fields = _read_fields(value, form)
    version = fields.pop("v", read.get(VERSION, SCHEMA_VERSION))
    may_hold_unknown = check_version(version)
    _add_from_envelope(fields, read, key, partition, offset)
    query = validate_query(fields, may_hold_unknown=may_hold_unknown)
    reply = ReplyAddress(
        key,
        "msgpack" if form == "msgpack" else "json",
        envelope,
        received.echoed,
        _reply_topic(received, reply_topics),
    )
    return IncomingQuery(query, reply, input_digest(query.text, query.text_pair))


def encode_query(
    query: Query,
    *,
    encoding: Encoding = "msgpack",
    envelope: CallerEnvelope = "native",
    source: str = DEFAULT_SOURCE,
) -> EncodedMessage:
    """The value and headers of a query's record.

    Args:
        query: What to ask. It is checked as the scheduler will check it.
        encoding: Of the value, and so of the answer.
        envelope: `bare` is for a query of one text without parameters or deadline; its id must be
            the record's key.
        source: `ce_source` of a CloudEvent.

    Raises:
        MessageError: The query is not valid.
    """
    fields = _fields(query)
    check_query(dict(fields))
    if envelope == "bare":
        if fields.keys() > {"id", "task", "text"} or isinstance(fields["text"], list):
            raise MessageError(Reason.UNKNOWN_FIELD, "bare text carries a text and a task only")
        headers = ((CONTENT_TYPE, TEXT.encode()), (TASK, query.task.encode()))
        return EncodedMessage(query.text.encode(), headers)
    fields["v"] = SCHEMA_VERSION
    is_msgpack = encoding == "msgpack"
    value = pack(fields) if is_msgpack else write_json(fields)
    own = (
        (CONTENT_TYPE, _MSGPACK_BYTES if is_msgpack else _JSON_BYTES),
        (TASK, query.task.encode()),
    )
    if envelope == "native":
        return EncodedMessage(value, own)
    attributes = cloudevents.request_headers(query.id, query.task, source, query.expires_at_ms)
    return EncodedMessage(value, own + attributes)


def _check_sizes(value: bytes | None, key: bytes | None) -> None:
    if value is not None and len(value) > MAX_QUERY_BYTES:
        raise MessageError(Reason.PAYLOAD_TOO_LARGE, f"more than {MAX_QUERY_BYTES} bytes")
    if key is not None and len(key) > MAX_KEY_BYTES:
        raise MessageError(Reason.KEY_TOO_LARGE, f"a key of more than {MAX_KEY_BYTES} bytes")


def _form(value: bytes, read: dict[str, str]) -> ValueForm:
    content_type = read.get(CONTENT_TYPE)
    if content_type is not None:
        return value_form(content_type)
    if TASK in read or "ce_subject" in read:
        return "text"
    # Without a task beside it, bare text is no query. "{" cannot begin a MessagePack map.
    return "json" if value.startswith(b"{") else "msgpack"


def _read_fields(value: bytes, form: ValueForm) -> dict[str, Any]:
    if form == "msgpack":
        return read_msgpack(value, max_array_items=MAX_QUERY_ARRAY_ITEMS)
    if form == "json":
        return read_json(value, max_array_items=MAX_QUERY_ARRAY_ITEMS)
    if form == "structured":
        raise MessageError(Reason.CONTENT_TYPE_UNSUPPORTED, "a CloudEvent within a CloudEvent")
    try:
        return {"text": value.decode()}
    except UnicodeDecodeError as error:
        raise MessageError(
            Reason.INVALID_UTF8, "without content-type the value must be UTF-8 text"
        ) from error


def _add_from_envelope(
    fields: dict[str, Any], read: dict[str, str], key: bytes | None, partition: int, offset: int
) -> None:
    """Fill in what the value leaves to headers, key and place."""
    tag = read.get(TASK)
    if "task" not in fields:
        tag = tag or read.get("ce_subject")
        if tag is not None:
            fields["task"] = tag
    elif tag is not None and tag != fields["task"]:
        raise MessageError(Reason.BAD_HEADER, "header task and field task differ")
    if "id" not in fields:
        fields["id"] = _id_from_envelope(read, key) or f"{partition}-{offset}"
    if "ce_expirytime" in read and "expires_at_ms" not in fields:
        fields["expires_at_ms"] = cloudevents.expires_at_ms(read)


def _id_from_envelope(read: dict[str, str], key: bytes | None) -> str | None:
    names = (read.get("ce_id", ""), (key or b"").decode("ascii", "replace"))
    return next((name for name in names if is_query_id(name)), None)


def _reply_topic(received: QueryHeaders, allowed: Collection[str] | None) -> str | None:
    if allowed is None or not received.reply_topics:
        return None
    topics = {topic.decode("ascii", "replace") for topic in received.reply_topics}
    topic = topics.pop()
    if topics or topic not in allowed:
        raise MessageError(Reason.REPLY_TOPIC_DENIED, "the reply topic is not in the allow-list")
    return topic


def _fields(query: Query) -> dict[str, Any]:
    fields: dict[str, Any] = {"id": query.id, "task": query.task, "text": query.text}
    if query.text_pair is not None:
        fields["text"] = [query.text, query.text_pair]
    if query.parameters is not NO_PARAMETERS:
        parameters = {
            name: value
            for name in _PARAMETER_NAMES
            if (value := getattr(query.parameters, name)) is not None
        }
        if parameters:
            fields["parameters"] = parameters
    if query.ttl_ms is not None:
        fields["ttl_ms"] = query.ttl_ms
    if query.expires_at_ms is not None:
        fields["expires_at_ms"] = query.expires_at_ms
    return fields
