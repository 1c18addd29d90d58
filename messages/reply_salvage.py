"""How to answer a record that is no valid query: what can still be read of whom it came from."""

from typing import Any, NamedTuple

from messages.errors import MessageError
from messages.headers import (
    CONTENT_TYPE,
    ECHOED,
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
    id: str
    """Empty where nothing that can be an id was found."""
    task: str
    """Empty where nothing that can name a task was found."""


def salvage_reply(value: bytes | None, key: bytes | None, headers: Headers) -> SalvagedReply:
    """The best that can be said of a record that does not decode. Never raises."""
    read: dict[str, str] = {}
    echoed: list[tuple[str, bytes]] = []
    num_bytes = 0
    for name, header in headers[: 4 * MAX_HEADERS]:
        if not isinstance(name, str) or not isinstance(header, bytes):
            continue
        if name in ECHOED and len(echoed) < MAX_HEADERS:
            num_bytes += len(name) + len(header)
            if num_bytes <= MAX_HEADERS_BYTES:
                echoed.append((name, header))
        read.setdefault(name, header.decode("utf-8", "replace"))
    fields = _fields(value)
    reply = ReplyAddress(
        key if key is not None and len(key) <= MAX_KEY_BYTES else None,
        _encoding(value, read),
        "cloudevents" if "ce_specversion" in read else "native",
        tuple(echoed),
    )
    names = (fields.get("id"), read.get("ce_id"), (key or b"").decode("ascii", "replace"))
    tags = (fields.get("task"), read.get(TASK), read.get("ce_subject"))
    return SalvagedReply(
        reply,
        next((name for name in names if isinstance(name, str) and is_query_id(name)), ""),
        next((tag for tag in tags if isinstance(tag, str) and is_task_tag(tag)), ""),
    )


def _encoding(value: bytes | None, read: dict[str, str]) -> Encoding:
    content_type = read.get(CONTENT_TYPE)
    if content_type is not None:
        return "msgpack" if "msgpack" in content_type.lower() else "json"
    if TASK in read or "ce_subject" in read or (value or b"").startswith(b"{"):
        return "json"
    return "msgpack"


def _fields(value: bytes | None) -> dict[str, Any]:
    if value is None or len(value) > MAX_QUERY_BYTES:
        return {}
    try:
        if value.startswith(b"{"):
            return read_json(value)
        return read_msgpack(value, max_array_items=MAX_QUERY_ARRAY_ITEMS)
    except MessageError:
        return {}
