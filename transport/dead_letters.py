"""Dead letters: the raw bytes of what could not be answered, with the reason in headers.

The headers are those of KIP-1034 (`__streams.errors.*`), which dead-letter tools read, and ours.
They stand after the record's own, so the last of each name is the true one.
"""

from messages.errors import Reason
from transport.records import Headers, OutgoingRecord, Record
from transport.topics import DEAD_LETTER_MAX_BYTES

_RESERVED_BYTES = 16_384
"""Kept free of the dead-letter topic's limit for our headers and the record's envelope."""

MAX_ORIGINAL_BYTES = DEAD_LETTER_MAX_BYTES - _RESERVED_BYTES


def dead_letter(
    record: Record, reason: Reason, message: str, stage: str, attempt: int, topic: str
) -> OutgoingRecord:
    """Return the dead letter of a record.

    The value of a record that does not fit is cut, and `petstream-truncated` holds its length;
    headers that do not fit are left out, and `petstream-headers-dropped` holds their number, or
    `all` where they could not be read; a key that does not fit is left out, and
    `petstream-key-dropped` holds its length.
    A corrupt record has coordinates only.

    Args:
        record: What could not be answered.
        reason: Machine reason.
        message: For people; must not repeat the input.
        stage: Where it was found.
        attempt: How often it was tried.
        topic: The dead-letter topic.
    """
    key, headers = record.key, record.headers
    marks = list(_marks(record, reason, message, stage, attempt))
    if key is not None and len(key) > MAX_ORIGINAL_BYTES:
        marks.append(("petstream-key-dropped", str(len(key)).encode()))
        key = None
    room = MAX_ORIGINAL_BYTES - len(key or b"")
    if record.bad_header is not None:
        marks.append(("petstream-headers-dropped", b"all"))
    if _length(headers) > room:
        marks.append(("petstream-headers-dropped", str(len(headers)).encode()))
        headers = ()
    room -= _length(headers)
    value = record.value
    if value is not None and len(value) > room:
        marks.append(("petstream-truncated", str(len(value)).encode()))
        value = value[:room]
    return OutgoingRecord(topic, value, key, (*headers, *marks))


def _marks(record: Record, reason: Reason, message: str, stage: str, attempt: int) -> Headers:
    return (
        ("__streams.errors.exception", reason.value.encode()),
        ("__streams.errors.message", message.encode()[:1000]),
        ("__streams.errors.topic", record.topic.encode()),
        ("__streams.errors.partition", str(record.partition).encode()),
        ("__streams.errors.offset", str(record.offset).encode()),
        ("petstream-error-code", reason.value.encode()),
        ("petstream-stage", stage.encode()),
        ("petstream-attempt", str(attempt).encode()),
        *((("petstream-corrupt", record.corrupt.encode()),) if record.corrupt else ()),
    )


def _length(headers: Headers) -> int:
    return sum(len(name.encode()) + len(value or b"") for name, value in headers)
