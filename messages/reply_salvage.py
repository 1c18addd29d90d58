"""How to answer a record that is no valid query: what can still be read of whom it came from."""

from typing import Any, NamedTuple

from messages.errors import MessageError
from messages.headers import (
    CONTENT_TYPE,
    ECHOED,
    STRUCTURED_CLOUDEVENT,
    TASK,
    Headers,
)
from messages.limits import (
    MAX_HEADERS,
    MAX_HEADERS_BYTES,
    MAX_KEY_BYTES,
    MAX_QUERY_ARRAY_ITEMS,
    MAX_QUERY_BYTES,
)
from messages.reply import Encoding, ReplyAddress
from messages.schema import is_query_id, is_task_tag
from messages.strict_json import read_json
from messages.strict_msgpack import read_msgpack


class SalvagedReply(NamedTuple):
    """Where the error goes, and what it may call the query."""

    reply: ReplyAddress
    """Never with a reply topic: whether one was allowed is not known."""
    id: str
    """Empty where nothing that can be an id was found and the record's place was not given."""
    task: str
    """Empty where nothing that can name a task was found."""


def salvage_reply(
    value: bytes | None,
    key: bytes | None,
    headers: Headers,
    *,
    partition: int | None = None,
    offset: int | None = None,
) -> SalvagedReply:
    """The best that can be said of a record that does not decode. Never raises.

    An id is looked for in the value, `ce_id`, the key and the record's place, a task in the value,
    header `task` and `ce_subject`. What is too large to be echoed is left out.
    """
    read, echoed = _headers(headers)
    fields = _fields(value)
    is_structured = _content_type(read).startswith(STRUCTURED_CLOUDEVENT)
    if is_structured and isinstance(name := fields.get("id"), str) and is_query_id(name):
        echoed.append(("ce_id", name.encode()))
    place = "" if partition is None or offset is None else f"{partition}-{offset}"
    names = (fields.get("id"), read.get("ce_id"), (key or b"").decode("ascii", "replace"), place)
    tags = (fields.get("task"), fields.get("subject"), read.get(TASK), read.get("ce_subject"))
    reply = ReplyAddress(
        key if key is not None and len(key) <= MAX_KEY_BYTES else None,
        _encoding(value, read),
        "cloudevents" if is_structured or "ce_specversion" in read else "native",
        tuple(echoed),
    )
    return SalvagedReply(
        reply,
        next((name for name in names if isinstance(name, str) and is_query_id(name)), ""),
        next((tag for tag in tags if isinstance(tag, str) and is_task_tag(tag)), ""),
    )


def _headers(headers: Headers) -> tuple[dict[str, str], list[tuple[str, bytes]]]:
    """The first value of each header as text, and as many to echo as an answer may carry."""
    read: dict[str, str] = {}
    echoed: list[tuple[str, bytes]] = []
    num_bytes = 0
    for name, value in headers:
        if not isinstance(name, str) or not isinstance(value, bytes):
            continue
        if len(value) <= MAX_KEY_BYTES:
            read.setdefault(name, value.decode("utf-8", "replace"))
        if name in ECHOED and len(echoed) < MAX_HEADERS:
            num_bytes += len(name) + len(value)
            if num_bytes <= MAX_HEADERS_BYTES:
                echoed.append((name, value))
    return read, echoed


def _content_type(read: dict[str, str]) -> str:
    return read.get(CONTENT_TYPE, "").strip().lower()


def _encoding(value: bytes | None, read: dict[str, str]) -> Encoding:
    content_type = _content_type(read)
    if content_type:
        return "msgpack" if "msgpack" in content_type else "json"
    is_text = TASK in read or "ce_subject" in read or (value or b"").startswith(b"{")
    return "json" if is_text else "msgpack"


def _fields(value: bytes | None) -> dict[str, Any]:
    if not value or len(value) > MAX_QUERY_BYTES:
        return {}
    try:
        if value.startswith(b"{"):
            return read_json(value, max_array_items=MAX_QUERY_ARRAY_ITEMS)
        return read_msgpack(value, max_array_items=MAX_QUERY_ARRAY_ITEMS)
    except MessageError:
        return {}
