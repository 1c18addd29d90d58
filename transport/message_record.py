"""A record from what the consumer handed out."""

from collections.abc import Sequence
from operator import methodcaller
from typing import cast

from confluent_kafka import Message

from transport.records import Headers, Record

# confluent-kafka 2.16.1 answers a header name that is not UTF-8 with an exception *and* a list
# that holds a null pointer. Python turns that into SystemError only where it calls generically:
# a specialised `message.headers()` skips the check, and to read the list kills the process.
_headers_checked = methodcaller("headers")


def record_of(message: Message) -> Record:
    """Return a message without error as a record.

    No header can be had of a record with one name that is not UTF-8: it has a `bad_header`.

    Raises:
        ValueError: If the message has no coordinates, as one that was never consumed.
    """
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    if topic is None or partition is None or offset is None:
        raise ValueError("a message that was not consumed has no coordinates")
    headers: Headers = ()
    bad_header = None
    try:
        headers = tuple(cast("Sequence[tuple[str, bytes | None]]", _headers_checked(message) or ()))
    except (SystemError, UnicodeDecodeError):
        bad_header = "the name of a header is not UTF-8"
    _, appended_ms = message.timestamp()
    return Record(
        topic=topic,
        partition=partition,
        offset=offset,
        key=message.key(),
        value=message.value(),
        headers=headers,
        appended_ms=appended_ms,
        bad_header=bad_header,
    )
