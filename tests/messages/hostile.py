"""Hostile records: what each is, and the reason it must be refused with.

Numbered as the table of refused input in docs/messages.md, which a test compares with this list.
"""

import gzip
import json
import pickle
from typing import Any, NamedTuple

import msgpack  # type: ignore[import-untyped]

from messages.errors import Reason
from messages.headers import Headers

GOOD: dict[str, Any] = {"v": "1.0", "id": "q-1", "task": "banking77", "text": "hello there"}
MSGPACK_HEADERS: Headers = (("content-type", b"application/msgpack"),)
JSON_HEADERS: Headers = (("content-type", b"application/json"),)
TEXT_HEADERS: Headers = (("task", b"banking77"),)
CLOUDEVENT_HEADERS: Headers = (
    ("content-type", b"application/json"),
    ("ce_specversion", b"1.0"),
    ("ce_id", b"A-1"),
    ("ce_source", b"urn:test"),
    ("ce_type", b"com.example.query"),
    ("ce_subject", b"banking77"),
)
DATA = b'{"text":"hello"}'


class Hostile(NamedTuple):
    """A record that is no valid query."""

    row: int
    name: str
    value: bytes | None
    reason: Reason
    headers: Headers = MSGPACK_HEADERS
    key: bytes | None = b"key"


def packed(**changes: Any) -> bytes:  # noqa: ANN401 - any value is the point
    """A good query in MessagePack, with `changes`."""
    data: bytes = msgpack.packb({**GOOD, **changes})
    return data


def with_key(key: object) -> bytes:
    """A good query in MessagePack with a field named by something else than a string."""
    fields: dict[object, object] = {key: 1}
    fields.update(GOOD)
    data: bytes = msgpack.packb(fields)
    return data


def without(name: str) -> bytes:
    """A good query in MessagePack that lacks a field."""
    data: bytes = msgpack.packb({key: value for key, value in GOOD.items() if key != name})
    return data


def with_raw(name: str, value: bytes) -> bytes:
    """A good query in MessagePack whose field `name` has the raw encoding `value`."""
    fields = {key: msgpack.packb(item) for key, item in GOOD.items()} | {name: value}
    pairs = b"".join(msgpack.packb(key) + raw for key, raw in fields.items())
    return bytes([0x80 | len(fields)]) + pairs


def as_json(**changes: Any) -> bytes:  # noqa: ANN401 - any value is the point
    """A good query in JSON, with `changes`."""
    return json.dumps({**GOOD, **changes}).encode()


def nested(depth: int, inner: object = 1) -> object:
    """Arrays in arrays."""
    for _ in range(depth):
        inner = [inner]
    return inner


def _with(headers: Headers, *more: tuple[str, bytes]) -> Headers:
    names = {name for name, _ in more}
    return (*(pair for pair in headers if pair[0] not in names), *more)


DECODING = [
    Hostile(1, "no value", None, Reason.EMPTY_PAYLOAD),
    Hostile(1, "empty value", b"", Reason.EMPTY_PAYLOAD),
    Hostile(1, "empty text", b"", Reason.EMPTY_PAYLOAD, TEXT_HEADERS),
    Hostile(2, "truncated map", packed()[:-3], Reason.TRUNCATED),
    Hostile(2, "truncated after the first byte", packed()[:1], Reason.TRUNCATED),
    Hostile(2, "truncated JSON", as_json()[:-5], Reason.TRUNCATED, JSON_HEADERS),
    Hostile(2, "truncated JSON between fields", b'{"id":"a",', Reason.TRUNCATED, JSON_HEADERS),
    Hostile(3, "trailing byte", packed() + b"\x00", Reason.TRAILING_BYTES),
    Hostile(
        3,
        "trailing newline is white space",
        as_json() + b"\n}",
        Reason.TRAILING_BYTES,
        JSON_HEADERS,
    ),
    Hostile(4, "two messages", packed() * 2, Reason.TRAILING_BYTES),
    Hostile(4, "two JSON messages", as_json() * 2, Reason.TRAILING_BYTES, JSON_HEADERS),
    Hostile(5, "type byte 0xc1", b"\xc1", Reason.BAD_ENCODING),
    Hostile(5, "type byte 0xc1 within", with_raw("text", b"\xc1"), Reason.BAD_ENCODING),
    Hostile(6, "array of 2^32-1 items", b"\xdd\xff\xff\xff\xff", Reason.TOO_MANY_ITEMS),
    Hostile(6, "the same within", with_raw("text", b"\xdd\xff\xff\xff\xff"), Reason.TOO_MANY_ITEMS),
    Hostile(7, "map of 2^32-1 items", b"\xdf\xff\xff\xff\xff", Reason.TOO_MANY_ITEMS),
    Hostile(8, "str of 4 GiB", with_raw("text", b"\xdb\xff\xff\xff\xff"), Reason.TRUNCATED),
    Hostile(8, "bin of 4 GiB", with_raw("text", b"\xc6\xff\xff\xff\xff"), Reason.TRUNCATED),
    Hostile(8, "ext of 4 GiB", with_raw("text", b"\xc9\xff\xff\xff\xff\x05"), Reason.EXT_FORBIDDEN),
    Hostile(9, "200,000 arrays in one another", b"\x91" * 200_000, Reason.TOO_DEEP),
    Hostile(9, "100 arrays as text", packed(text=nested(100)), Reason.TOO_DEEP),
    Hostile(9, "200,000 JSON arrays", b'{"text":' + b"[" * 200_000, Reason.TOO_DEEP, JSON_HEADERS),
    Hostile(9, "200,000 JSON objects", b'{"a":' * 50_000, Reason.TOO_DEEP, JSON_HEADERS),
    Hostile(10, "100 arrays in an unknown field", packed(extra=nested(100)), Reason.TOO_DEEP),
    Hostile(
        10, "the same in a later minor", packed(v="1.7", parameters=nested(100)), Reason.TOO_DEEP
    ),
    Hostile(
        10,
        "in an unknown field of a later minor",
        packed(v="1.7", extra=nested(100)),
        Reason.TOO_DEEP,
    ),
    Hostile(11, "too many empty arrays", packed(text=[[]] * 1_000), Reason.TOO_MANY_ITEMS),
    Hostile(
        11, "the same in JSON", as_json(text=[[]] * 10_000), Reason.TOO_MANY_ITEMS, JSON_HEADERS
    ),
    Hostile(
        11,
        "the same in an unknown field of a later minor",
        as_json(v="1.7", extra={"a": [[]] * 1_000}),
        Reason.TOO_MANY_ITEMS,
        JSON_HEADERS,
    ),
    Hostile(
        11, "too many fields", packed(**{f"f{n}": n for n in range(70)}), Reason.TOO_MANY_ITEMS
    ),
    Hostile(
        11,
        "15,000 unknown fields of a later minor",
        packed(v="1.7", **{f"f{n}": n for n in range(15_000)}),
        Reason.TOO_MANY_ITEMS,
    ),
    Hostile(
        11,
        "the same in JSON",
        as_json(v="1.7", **{f"f{n}": n for n in range(15_000)}),
        Reason.TOO_MANY_ITEMS,
        JSON_HEADERS,
    ),
    Hostile(
        11,
        "65 fields in a map within",
        as_json(v="1.7", parameters={f"f{n}": n for n in range(65)}),
        Reason.TOO_MANY_ITEMS,
        JSON_HEADERS,
    ),
    Hostile(12, "JSON said to be MessagePack", as_json(), Reason.BAD_ENCODING),
    Hostile(12, "MessagePack said to be JSON", packed(), Reason.INVALID_UTF8, JSON_HEADERS),
    Hostile(12, "prose said to be JSON", b"hello there", Reason.BAD_ENCODING, JSON_HEADERS),
    Hostile(13, "pickle", pickle.dumps(GOOD), Reason.BAD_ENCODING),
    Hostile(13, "pickle of protocol 0", pickle.dumps(GOOD, 0), Reason.BAD_ENCODING),
    Hostile(14, "gzip", gzip.compress(packed()), Reason.BAD_ENCODING),
    Hostile(14, "zip", b"PK\x03\x04" + bytes(40), Reason.BAD_ENCODING),
    Hostile(15, "a list", msgpack.packb(["a", "b"]), Reason.NOT_A_MAP),
    Hostile(15, "a string", msgpack.packb("hello"), Reason.NOT_A_MAP),
    Hostile(15, "an integer", msgpack.packb(7), Reason.NOT_A_MAP),
    Hostile(15, "nil", b"\xc0", Reason.NOT_A_MAP),
    Hostile(15, "a JSON list", b"[1]", Reason.NOT_A_MAP, JSON_HEADERS),
    Hostile(15, "JSON null", b"null", Reason.NOT_A_MAP, JSON_HEADERS),
    Hostile(16, "integer key", with_key(1), Reason.BAD_KEY),
    Hostile(16, "nil key", with_key(None), Reason.BAD_KEY),
    Hostile(16, "bytes key", with_key(b"id"), Reason.BAD_KEY),
    Hostile(16, "list key", b"\x81\x91\x01\x01", Reason.BAD_KEY),
    Hostile(16, "map key", b"\x81\x80\x01", Reason.BAD_KEY),
    Hostile(16, "integer key within", packed(parameters={1: 1}), Reason.BAD_KEY),
    Hostile(17, "id twice", b"\x82\xa2id\xa1a\xa2id\xa1b", Reason.DUPLICATE_KEY),
    Hostile(17, "id twice in JSON", b'{"id":"a","id":"b"}', Reason.DUPLICATE_KEY, JSON_HEADERS),
    Hostile(
        17, "twice by escape", b'{"id":"a","\\u0069d":"b"}', Reason.DUPLICATE_KEY, JSON_HEADERS
    ),
    Hostile(18, "invalid UTF-8 in text", with_raw("text", b"\xa2\xff\xfe"), Reason.INVALID_UTF8),
    Hostile(
        18, "Latin-1 in bare text", "caf\u00e9".encode("latin-1"), Reason.INVALID_UTF8, TEXT_HEADERS
    ),
    Hostile(18, "invalid UTF-8 as key", b"\x81\xa1\xff\x01", Reason.INVALID_UTF8),
    Hostile(
        18, "UTF-16 JSON", as_json().decode().encode("utf-16"), Reason.INVALID_UTF8, JSON_HEADERS
    ),
    Hostile(19, "lone surrogate bytes", with_raw("text", b"\xa3\xed\xa0\x80"), Reason.INVALID_UTF8),
    Hostile(
        19,
        "lone surrogate escape",
        b'{"id":"a","task":"t","text":"\\ud800"}',
        Reason.INVALID_UTF8,
        JSON_HEADERS,
    ),
    Hostile(
        19,
        "the same in id",
        b'{"id":"\\udfff","task":"t","text":"x"}',
        Reason.INVALID_UTF8,
        JSON_HEADERS,
    ),
    Hostile(20, "NUL in id", packed(id="a\x00b"), Reason.BAD_FORMAT),
    Hostile(20, "NUL in task", packed(task="a\x00b"), Reason.BAD_FORMAT),
    Hostile(20, "escape sequence in id", packed(id="\x1b[31m"), Reason.BAD_FORMAT),
    Hostile(20, "line feed in header task", b"hi", Reason.BAD_HEADER, (("task", b"a\nb"),)),
    Hostile(21, "id ends in a line feed", packed(id="abc\n"), Reason.BAD_FORMAT),
    Hostile(21, "task ends in a line feed", packed(task="abc\n"), Reason.BAD_FORMAT),
    Hostile(22, "bytes for text", packed(text=b"hello"), Reason.WRONG_TYPE),
    Hostile(22, "bytes for id", packed(id=b"q-1"), Reason.WRONG_TYPE),
    Hostile(23, "extension type", with_raw("text", b"\xd4\x05\x00"), Reason.EXT_FORBIDDEN),
    Hostile(23, "extension type at the top", b"\xd4\x05\x00", Reason.EXT_FORBIDDEN),
    Hostile(24, "timestamp", with_raw("text", b"\xd6\xff" + bytes(4)), Reason.EXT_FORBIDDEN),
    Hostile(24, "timestamp at the top", b"\xd6\xff" + bytes(4), Reason.EXT_FORBIDDEN),
    Hostile(
        24,
        "timestamp in an unknown field",
        with_raw("x", b"\xd6\xff" + bytes(4)),
        Reason.EXT_FORBIDDEN,
    ),
    Hostile(
        24,
        "timestamp of 96 bits, too many nanoseconds",
        with_raw("text", b"\xc7\x0c\xff" + b"\xff" * 12),
        Reason.EXT_FORBIDDEN,
    ),
    Hostile(
        24,
        "timestamp of 3 bytes",
        with_raw("text", b"\xc7\x03\xff" + bytes(3)),
        Reason.EXT_FORBIDDEN,
    ),
    Hostile(25, "true for an integer", packed(ttl_ms=True), Reason.WRONG_TYPE),
    Hostile(25, "float for an integer", packed(ttl_ms=5.0), Reason.WRONG_TYPE),
    Hostile(25, "string for an integer", packed(ttl_ms="5"), Reason.WRONG_TYPE),
    Hostile(25, "true for a float", packed(parameters={"min_confidence": True}), Reason.WRONG_TYPE),
    Hostile(
        25, "float for an integer in JSON", as_json(ttl_ms=5.0), Reason.WRONG_TYPE, JSON_HEADERS
    ),
    Hostile(25, "integer for id", packed(id=7), Reason.WRONG_TYPE),
    Hostile(26, "2^64-1 for a small integer", packed(ttl_ms=2**64 - 1), Reason.OUT_OF_RANGE),
    Hostile(26, "2^200 in JSON", as_json(ttl_ms=2**200), Reason.OUT_OF_RANGE, JSON_HEADERS),
    Hostile(
        26, "10,000 digits", b'{"ttl_ms":' + b"9" * 10_000 + b"}", Reason.OUT_OF_RANGE, JSON_HEADERS
    ),
    Hostile(27, "NaN", packed(parameters={"min_confidence": float("nan")}), Reason.OUT_OF_RANGE),
    Hostile(
        27, "infinity", packed(parameters={"latency_slo_ms": float("inf")}), Reason.OUT_OF_RANGE
    ),
    Hostile(
        27,
        "NaN in JSON",
        as_json(parameters={"min_confidence": float("nan")}),
        Reason.OUT_OF_RANGE,
        JSON_HEADERS,
    ),
    Hostile(
        27,
        "1e999 in JSON",
        b'{"id":"a","task":"t","text":"x","parameters":{"latency_slo_ms":1e999}}',
        Reason.OUT_OF_RANGE,
        JSON_HEADERS,
    ),
    Hostile(
        27,
        "NaN in an unknown field of a later minor",
        as_json(v="1.7", extra=float("nan")),
        Reason.OUT_OF_RANGE,
        JSON_HEADERS,
    ),
    Hostile(28, "unknown field", packed(txt="hello"), Reason.UNKNOWN_FIELD),
    Hostile(28, "unknown parameter", packed(parameters={"topk": 1}), Reason.UNKNOWN_FIELD),
    Hostile(29, "no text", without("text"), Reason.MISSING_FIELD),
    Hostile(29, "no task anywhere", without("task"), Reason.MISSING_FIELD),
    Hostile(29, "an empty map", b"\x80", Reason.MISSING_FIELD),
    Hostile(
        29,
        "text without a task, said to be text",
        b"hi",
        Reason.MISSING_FIELD,
        (("content-type", b"text/plain"),),
    ),
    Hostile(30, "another major version", packed(v="2.0"), Reason.SCHEMA_UNSUPPORTED),
    Hostile(30, "version 0", packed(v="0.9"), Reason.SCHEMA_UNSUPPORTED),
    Hostile(30, "version of another form", packed(v="1"), Reason.BAD_FORMAT),
    Hostile(30, "version with a line feed", packed(v="1.0\n"), Reason.BAD_FORMAT),
    Hostile(30, "empty version", packed(v=""), Reason.BAD_FORMAT),
    Hostile(30, "version as a number", packed(v=1), Reason.WRONG_TYPE),
    Hostile(30, "nil version", packed(v=None), Reason.SCHEMA_UNSUPPORTED),
    Hostile(
        30,
        "another major in the header",
        b"hi",
        Reason.SCHEMA_UNSUPPORTED,
        _with(TEXT_HEADERS, ("petstream-version", b"2.0")),
    ),
]

MEANING = [
    Hostile(33, "path as task", packed(task="../../etc/passwd"), Reason.BAD_FORMAT),
    Hostile(33, "slash in task", packed(task="a/b"), Reason.BAD_FORMAT),
    Hostile(33, "dunder task", packed(task="__class__"), Reason.BAD_FORMAT),
    Hostile(33, "task of 300 characters", packed(task="a" * 300), Reason.BAD_FORMAT),
    Hostile(33, "homoglyph in task", packed(task="b\u0430nking77"), Reason.BAD_FORMAT),
    Hostile(33, "revision 0", packed(task="banking77@0"), Reason.BAD_FORMAT),
    Hostile(33, "revision that is no number", packed(task="banking77@latest"), Reason.BAD_FORMAT),
    Hostile(33, "revision of 10 digits", packed(task="banking77@1234567890"), Reason.BAD_FORMAT),
    Hostile(33, "revision and alias", packed(task="banking77@1:prod"), Reason.BAD_FORMAT),
    Hostile(33, "path in the header", b"hi", Reason.BAD_FORMAT, (("task", b"../x"),)),
    Hostile(34, "text too long", packed(text="a" * 32_769), Reason.TEXT_TOO_LONG),
    Hostile(34, "second text too long", packed(text=["a", "b" * 40_000]), Reason.TEXT_TOO_LONG),
    Hostile(34, "bare text too long", b"a" * 40_000, Reason.TEXT_TOO_LONG, TEXT_HEADERS),
    Hostile(35, "no characters", packed(text=""), Reason.EMPTY_TEXT),
    Hostile(35, "only white space", packed(text=" \n\t\u3000"), Reason.EMPTY_TEXT),
    Hostile(35, "second text empty", packed(text=["a", ""]), Reason.EMPTY_TEXT),
    Hostile(35, "bare white space", b" \n", Reason.EMPTY_TEXT, TEXT_HEADERS),
    Hostile(36, "60,000 zero-width joiners", packed(text="\u200d" * 60_000), Reason.TEXT_TOO_LONG),
    Hostile(38, "ttl 0", packed(ttl_ms=0), Reason.OUT_OF_RANGE),
    Hostile(38, "ttl below 0", packed(ttl_ms=-1), Reason.OUT_OF_RANGE),
    Hostile(38, "ttl of eight days", packed(ttl_ms=691_200_000), Reason.OUT_OF_RANGE),
    Hostile(39, "priority 0", packed(parameters={"priority": 0}), Reason.OUT_OF_RANGE),
    Hostile(39, "priority 10", packed(parameters={"priority": 10}), Reason.OUT_OF_RANGE),
    Hostile(40, "empty id", packed(id=""), Reason.BAD_FORMAT),
    Hostile(40, "id of 65 characters", packed(id="a" * 65), Reason.BAD_FORMAT),
    Hostile(40, "id with a space", packed(id="a b"), Reason.BAD_FORMAT),
    Hostile(40, "id not ASCII", packed(id="\u00e4"), Reason.BAD_FORMAT),
    Hostile(43, "a field tenant", packed(tenant="other"), Reason.UNKNOWN_FIELD),
    Hostile(45, "parameters no map", packed(parameters=[1]), Reason.WRONG_TYPE),
    Hostile(45, "parameter of a wrong type", packed(parameters={"top_k": "3"}), Reason.WRONG_TYPE),
    Hostile(
        45, "parameter unknown", packed(parameters={"max_new_tokens": 10**9}), Reason.UNKNOWN_FIELD
    ),
    Hostile(45, "top_k a billion", packed(parameters={"top_k": 10**9}), Reason.OUT_OF_RANGE),
    Hostile(45, "level 99", packed(parameters={"level": 99}), Reason.OUT_OF_RANGE),
    Hostile(45, "accuracy 1.01", packed(parameters={"accuracy_target": 1.01}), Reason.OUT_OF_RANGE),
    Hostile(45, "accuracy 0", packed(parameters={"accuracy_target": 0.0}), Reason.OUT_OF_RANGE),
    Hostile(78, "three texts", packed(text=["a", "b", "c"]), Reason.WRONG_TYPE),
    Hostile(78, "one text in an array", packed(text=["a"]), Reason.WRONG_TYPE),
    Hostile(78, "nil as second text", packed(text=["a", None]), Reason.WRONG_TYPE),
    Hostile(78, "second text twice", packed(text=["a", "b"], text_pair="c"), Reason.WRONG_TYPE),
]

ENVELOPE = [
    Hostile(49, "key of 1 KiB and a byte", packed(), Reason.KEY_TOO_LARGE, key=b"k" * 1_025),
    Hostile(
        50,
        "33 headers",
        packed(),
        Reason.HEADERS_TOO_LARGE,
        tuple((f"h{n}", b"") for n in range(33)),
    ),
    Hostile(50, "header of 64 KiB", packed(), Reason.HEADERS_TOO_LARGE, (("h", bytes(65_536)),)),
    Hostile(
        50, "header name of 64 KiB", packed(), Reason.HEADERS_TOO_LARGE, (("h" * 65_536, b""),)
    ),
    Hostile(
        50,
        "the same without a value",
        packed(),
        Reason.HEADERS_TOO_LARGE,
        (("h" * 65_536, None),),
    ),
    Hostile(
        50, "content-type twice", packed(), Reason.BAD_HEADER, (*MSGPACK_HEADERS, *MSGPACK_HEADERS)
    ),
    Hostile(50, "task twice", b"hi", Reason.BAD_HEADER, (("task", b"a"), ("task", b"b"))),
    Hostile(50, "header not UTF-8", b"hi", Reason.BAD_HEADER, (("task", b"\xff"),)),
    Hostile(52, "value above the limit", packed(text="a" * 262_144), Reason.PAYLOAD_TOO_LARGE),
    Hostile(
        79,
        "another content type",
        packed(),
        Reason.CONTENT_TYPE_UNSUPPORTED,
        (("content-type", b"application/avro"),),
    ),
    Hostile(
        79,
        "another charset",
        b"hi",
        Reason.CONTENT_TYPE_UNSUPPORTED,
        _with(TEXT_HEADERS, ("content-type", b"text/plain; charset=utf-16")),
    ),
    Hostile(
        79,
        "an empty content type",
        packed(),
        Reason.CONTENT_TYPE_UNSUPPORTED,
        (("content-type", b""),),
    ),
    Hostile(
        80,
        "header task and field task differ",
        packed(),
        Reason.BAD_HEADER,
        _with(MSGPACK_HEADERS, ("task", b"snips")),
    ),
    Hostile(
        81,
        "no ce_id",
        DATA,
        Reason.BAD_HEADER,
        tuple(h for h in CLOUDEVENT_HEADERS if h[0] != "ce_id"),
    ),
    Hostile(
        81,
        "ce_specversion 0.3",
        DATA,
        Reason.SCHEMA_UNSUPPORTED,
        _with(CLOUDEVENT_HEADERS, ("ce_specversion", b"0.3")),
    ),
    Hostile(
        81,
        "ce_type of version 2",
        DATA,
        Reason.SCHEMA_UNSUPPORTED,
        _with(CLOUDEVENT_HEADERS, ("ce_type", b"dev.petstream.inference.request.v2")),
    ),
    Hostile(
        81,
        "ce_expirytime tomorrow",
        DATA,
        Reason.BAD_HEADER,
        _with(CLOUDEVENT_HEADERS, ("ce_expirytime", b"tomorrow")),
    ),
    Hostile(
        81,
        "ce_expirytime without zone",
        DATA,
        Reason.BAD_HEADER,
        _with(CLOUDEVENT_HEADERS, ("ce_expirytime", b"2026-11-23T10:00:00")),
    ),
    Hostile(
        81,
        "ce_expirytime on 30 February",
        DATA,
        Reason.BAD_HEADER,
        _with(CLOUDEVENT_HEADERS, ("ce_expirytime", b"2026-02-30T10:00:00Z")),
    ),
    Hostile(
        82,
        "an answer fed back",
        DATA,
        Reason.BAD_HEADER,
        _with(CLOUDEVENT_HEADERS, ("ce_type", b"dev.petstream.inference.error.v1")),
    ),
    Hostile(
        82,
        "an answer's source",
        DATA,
        Reason.BAD_HEADER,
        _with(CLOUDEVENT_HEADERS, ("ce_source", b"/petstream/petstream.queries")),
    ),
]


def structured(**changes: Any) -> bytes:  # noqa: ANN401 - any value is the point
    """A good structured CloudEvent with `changes`; None takes an attribute away."""
    event = {
        "specversion": "1.0",
        "id": "A-1",
        "source": "urn:test",
        "type": "com.example.query",
        "subject": "banking77",
        "data": {"text": "hello"},
        **changes,
    }
    return json.dumps({name: value for name, value in event.items() if value is not None}).encode()


STRUCTURED_HEADERS: Headers = (("content-type", b"application/cloudevents+json; charset=utf-8"),)
STRUCTURED = [
    Hostile(83, name, value, reason, STRUCTURED_HEADERS)
    for name, value, reason in (
        ("no data", structured(data=None), Reason.MISSING_FIELD),
        ("no specversion", structured(specversion=None), Reason.MISSING_FIELD),
        ("no id", structured(id=None), Reason.BAD_HEADER),
        ("attribute of a wrong type", structured(subject=["a"]), Reason.WRONG_TYPE),
        ("attribute with control characters", structured(id="a\nb"), Reason.BAD_FORMAT),
        ("attribute with a malformed name", structured(**{"a-b": "c"}), Reason.BAD_FORMAT),
        ("attributes too large", structured(correlationid="a" * 20_000), Reason.HEADERS_TOO_LARGE),
        (
            "too many attributes",
            structured(**{f"a{n}": "b" for n in range(40)}),
            Reason.HEADERS_TOO_LARGE,
        ),
        (
            "attributes beyond number",
            structured(**{f"a{n}": "b" for n in range(70)}),
            Reason.TOO_MANY_ITEMS,
        ),
        ("base64 and data", structured(data_base64="aGk="), Reason.UNKNOWN_FIELD),
        ("no base64", structured(data=None, data_base64="a!"), Reason.BAD_ENCODING),
        ("bytes for base64", structured(data=None, data_base64=7), Reason.WRONG_TYPE),
        (
            "an event within",
            structured(datacontenttype="application/cloudevents+json"),
            Reason.CONTENT_TYPE_UNSUPPORTED,
        ),
        ("data of another type", structured(data=[1]), Reason.NOT_A_MAP),
        (
            "lone surrogate in data",
            structured(data="\ud800", datacontenttype="text/plain"),
            Reason.INVALID_UTF8,
        ),
        ("no JSON", b"\x80", Reason.INVALID_UTF8),
    )
]

ALL = DECODING + MEANING + ENVELOPE + STRUCTURED
