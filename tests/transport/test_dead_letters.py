"""Dead letters carry the record's own bytes, the reason, and always fit their topic."""

from messages.errors import Reason
from transport.dead_letters import dead_letter
from transport.records import OutgoingRecord, Record
from transport.topics import DEAD_LETTER_MAX_BYTES


def _record(value: bytes | None = b"raw \x00 bytes", **changes: object) -> Record:
    fields: dict[str, object] = {
        "topic": "ns.queries",
        "partition": 3,
        "offset": 41,
        "key": b"k",
        "value": value,
        "headers": (("task", b"t"),),
        "appended_ms": 0,
    }
    return Record(**(fields | changes))  # type: ignore[arg-type]


def _letter(record: Record, message: str = "not UTF-8") -> OutgoingRecord:
    return dead_letter(record, Reason.INVALID_UTF8, message, "decode", 2, "ns.dead-letters")


def test_original_bytes_and_headers_come_first() -> None:
    """Key, value and headers are the record's own, and ours stand behind them."""
    letter = _letter(_record())

    assert (letter.topic, letter.key, letter.value) == ("ns.dead-letters", b"k", b"raw \x00 bytes")
    assert letter.headers[0] == ("task", b"t")


def test_reason_and_origin_are_in_the_headers() -> None:
    """KIP-1034's names and ours."""
    headers = dict(_letter(_record()).headers)

    assert headers["__streams.errors.topic"] == b"ns.queries"
    assert headers["__streams.errors.partition"] == b"3"
    assert headers["__streams.errors.offset"] == b"41"
    assert headers["__streams.errors.exception"] == b"INVALID_UTF8"
    assert headers["__streams.errors.message"] == b"not UTF-8"
    assert headers["petstream-error-code"] == b"INVALID_UTF8"
    assert headers["petstream-stage"] == b"decode"
    assert headers["petstream-attempt"] == b"2"


def test_forged_headers_do_not_hide_ours() -> None:
    """A record that brings such headers itself keeps them, but the last ones are ours."""
    forged = (("petstream-error-code", b"NONE"), ("__streams.errors.offset", b"7"))

    headers = _letter(_record(headers=forged)).headers

    assert headers[:2] == forged
    assert dict(headers)["petstream-error-code"] == b"INVALID_UTF8"
    assert dict(headers)["__streams.errors.offset"] == b"41"


def test_null_value_stays_null() -> None:
    """A tombstone's dead letter is not an empty text."""
    assert _letter(_record(value=None)).value is None


def test_null_header_stays_null() -> None:
    """Its producer may tell it from an empty one."""
    headers = (("task", None), ("task", b""))

    letter = _letter(_record(headers=headers))

    assert letter.headers[:2] == headers
    assert letter.num_bytes > 0


def test_headers_that_cannot_be_read_are_missed() -> None:
    """Key and value are there all the same."""
    letter = _letter(_record(headers=(), bad_header="the name of a header is not UTF-8"))

    assert (letter.key, letter.value) == (b"k", b"raw \x00 bytes")
    assert dict(letter.headers)["petstream-headers-dropped"] == b"all"
    assert "petstream-corrupt" not in dict(letter.headers)


def test_corrupt_record_is_its_coordinates() -> None:
    """Nothing but where it stood, and why."""
    letter = _letter(_record(value=None, key=None, headers=(), corrupt="CRC mismatch"))

    assert (letter.key, letter.value) == (None, None)
    assert dict(letter.headers)["petstream-corrupt"] == b"CRC mismatch"


def test_large_batch_is_cut_to_fit() -> None:
    """A value over the topic's limit is cut, and its length told."""
    letter = _letter(_record(value=bytes(8_000_000)))

    assert letter.num_bytes < DEAD_LETTER_MAX_BYTES
    assert dict(letter.headers)["petstream-truncated"] == b"8000000"


def test_large_headers_are_dropped_to_fit() -> None:
    """Headers that alone are over the limit go, and their number is told; the value stays."""
    headers = tuple((f"h{i}", bytes(100_000)) for i in range(5))

    letter = _letter(_record(headers=headers))

    assert letter.num_bytes < DEAD_LETTER_MAX_BYTES
    assert letter.value == b"raw \x00 bytes"
    assert dict(letter.headers)["petstream-headers-dropped"] == b"5"


def test_large_key_and_message_fit_too() -> None:
    """Whatever is large, the letter can be published: it must never stop the flow."""
    letter = _letter(_record(key=bytes(500_000)), message="x" * 5000)

    assert letter.num_bytes < DEAD_LETTER_MAX_BYTES
