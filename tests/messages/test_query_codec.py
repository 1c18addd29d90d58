"""Queries: every encoding and envelope, and what is taken from headers, key and place."""

import json
from dataclasses import replace
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from messages.digest import input_digest
from messages.errors import MessageError, Reason
from messages.headers import ECHOED, Headers
from messages.query import Query, QueryParameters
from messages.query_codec import IncomingQuery, decode_query, encode_query
from messages.reply import CallerEnvelope, Encoding
from tests.messages import examples, hostile
from tests.messages.strategies import queries, texts


def _decode(
    value: bytes,
    headers: Headers = (),
    key: bytes | None = None,
    reply_topics: set[str] | None = None,
) -> IncomingQuery:
    return decode_query(value, key, headers, partition=3, offset=17, reply_topics=reply_topics)


@settings(deadline=None)
@given(
    queries,
    st.sampled_from(["msgpack", "json"]),
    st.sampled_from(["native", "cloudevents"]),
)
def test_a_query_comes_back_as_it_was(
    query: Query, encoding: Encoding, envelope: CallerEnvelope
) -> None:
    """In both encodings, natively and as a CloudEvent."""
    value, headers = encode_query(query, encoding=encoding, envelope=envelope)

    incoming = _decode(value, headers)

    assert incoming.query == query
    assert incoming.reply.encoding == encoding
    assert incoming.reply.envelope == envelope
    assert incoming.input_digest == input_digest(query.text, query.text_pair)


@settings(deadline=None)
@given(texts)
def test_bare_text_comes_back_as_it_was(text: str) -> None:
    """Every character, with no content-type and with text/plain."""
    query = Query("key-1", "banking77@2", text)
    value, headers = encode_query(query, envelope="bare")

    assert value == text.encode()
    assert _decode(value, headers, b"key-1").query == query
    assert _decode(value, (("task", b"banking77@2"),), b"key-1").query == query


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (b"order-17", "order-17"),
        (None, "3-17"),
        (b"", "3-17"),
        (bytes(range(16)), "3-17"),
        (b"a" * 65, "3-17"),
        (b"abc\n", "3-17"),
        ("\u00e4".encode(), "3-17"),
    ],
)
def test_a_bare_text_is_called_by_its_key_or_place(key: bytes | None, expected: str) -> None:
    """A key that cannot be an id is still the answer's key."""
    incoming = _decode(b"hello", (("task", b"banking77"),), key)

    assert incoming.query.id == expected
    assert incoming.reply.key == key
    assert incoming.reply.encoding == "json"
    assert incoming.reply.envelope == "bare"


def test_a_subject_alone_names_the_task_of_a_bare_text() -> None:
    """So that a router that sets only `ce_subject` works."""
    incoming = _decode(b"hello", (("ce_subject", b"banking77:prod"),))

    assert incoming.query == Query("3-17", "banking77:prod", "hello")


def test_bare_text_is_never_taken_for_json() -> None:
    """A text that begins with a brace is a text."""
    assert _decode(b'{"id":"x"}', (("task", b"t"),)).query.text == '{"id":"x"}'


def test_without_headers_a_map_is_read_as_what_it_is() -> None:
    """JSON and MessagePack need no content-type where the value names the task."""
    fields = {"task": "banking77", "text": "hello"}

    from_json = _decode(json.dumps(fields).encode())
    from_msgpack = _decode(msgpack.packb(fields))

    assert from_json.query == from_msgpack.query == Query("3-17", "banking77", "hello")
    assert from_json.reply.encoding == "json"
    assert from_msgpack.reply.encoding == "msgpack"


@pytest.mark.parametrize(
    "content_type",
    [b"application/json; charset=utf-8", b'Application/JSON;charset="UTF-8"', b"application/json"],
)
def test_content_types_are_read_as_http_means_them(content_type: bytes) -> None:
    """Case and parameters do not matter."""
    assert _decode(hostile.as_json(), (("content-type", content_type),)).query.id == "q-1"


def test_two_texts_come_as_an_array_or_as_two_fields() -> None:
    """Both spellings mean the same."""
    array = _decode(hostile.packed(text=["a", "b"]), hostile.MSGPACK_HEADERS)
    fields = _decode(hostile.packed(text="a", text_pair="b"), hostile.MSGPACK_HEADERS)

    assert array == fields
    assert array.query.text_pair == "b"


@pytest.mark.parametrize(
    "text", ["\ufeffhello", "a\u202eb", "\U0001f469\u200d\U0001f4bb", "a\x00b"]
)
def test_odd_texts_are_kept_as_they_are(text: str) -> None:
    """Bidirectional controls, a BOM, joined emoji, NUL: data, and nothing else."""
    for value, headers in (
        (hostile.packed(text=text), hostile.MSGPACK_HEADERS),
        (hostile.as_json(text=text), hostile.JSON_HEADERS),
        (text.encode(), hostile.TEXT_HEADERS),
    ):
        incoming = _decode(value, headers)
        assert incoming.query.text == text
        assert incoming.input_digest == input_digest(text)


def test_a_later_minor_version_is_read_without_what_is_new() -> None:
    """Unknown fields and parameters of 1.9 are ignored; the rest counts."""
    value = hostile.packed(v="1.9", novelty={"a": 1}, parameters={"top_k": 2, "novelty": 1})

    query = _decode(value, hostile.MSGPACK_HEADERS).query

    assert query.parameters == QueryParameters(top_k=2)


def test_a_later_minor_version_may_stand_in_the_header() -> None:
    """For values that hold no version."""
    headers = (*hostile.JSON_HEADERS, ("petstream-version", b"1.9"))

    assert _decode(b'{"task":"t","text":"a","novelty":1}', headers).query.task == "t"


def test_the_deadline_is_the_earlier_one() -> None:
    """Relative to the append time, or by the caller's clock."""
    query = examples.PLAIN_QUERY

    assert query.deadline_ms(1_000) is None
    assert replace(query, ttl_ms=50).deadline_ms(1_000) == 1_050
    assert replace(query, expires_at_ms=1_020).deadline_ms(1_000) == 1_020
    assert replace(query, ttl_ms=50, expires_at_ms=1_020).deadline_ms(1_000) == 1_020
    assert replace(query, ttl_ms=50, expires_at_ms=2_000).deadline_ms(1_000) == 1_050


@pytest.mark.parametrize("name", sorted(ECHOED))
def test_correlation_and_tracing_are_kept_byte_for_byte(name: str) -> None:
    """Also where they come twice, and where they are no text (Spring sends raw UUID bytes)."""
    raw = b"\x00\xff" + bytes(14) if not name.startswith("ce_") else b"order-17"
    headers = ((name, raw),) if name.startswith("ce_") else ((name, raw), (name, b"second"))

    incoming = _decode(hostile.packed(), (*hostile.MSGPACK_HEADERS, *headers))

    assert incoming.reply.headers == headers


def test_other_headers_are_neither_read_nor_echoed() -> None:
    """Whatever else a caller sends is his own."""
    headers = (*hostile.MSGPACK_HEADERS, ("x-own", b"\xff"), ("x-own", b"1"), ("absent", None))

    assert _decode(hostile.packed(), headers).reply.headers == ()


def test_a_header_without_a_value_counts_as_absent() -> None:
    """Neither read nor echoed, also twice and beside one that has a value."""
    headers: Headers = (
        ("content-type", None),
        ("task", None),
        *hostile.MSGPACK_HEADERS,
        ("kafka_correlationId", None),
        ("kafka_correlationId", b""),
        ("reply_to", None),
    )

    incoming = _decode(hostile.packed(), headers, reply_topics=set())

    assert incoming.reply.headers == (("kafka_correlationId", b""),)
    assert incoming.reply.topic is None


@pytest.mark.parametrize("name", ["kafka_replyTopic", "REPLY_TOPIC", "reply_to", "ce_replyto"])
def test_a_reply_topic_counts_only_from_an_allow_list(name: str) -> None:
    """Off: the wish is ignored. On: another topic is refused."""
    headers = (*hostile.MSGPACK_HEADERS, (name, b"tenant.replies"))
    value = hostile.packed()

    assert _decode(value, headers).reply.topic is None
    assert _decode(value, headers, reply_topics={"tenant.replies"}).reply.topic == "tenant.replies"
    with pytest.raises(MessageError) as caught:
        _decode(value, headers, reply_topics={"other"})
    assert caught.value.reason is Reason.REPLY_TOPIC_DENIED


def test_two_different_reply_topics_are_refused() -> None:
    """There is one answer, and nobody says which is meant."""
    headers = (("task", b"t"), ("reply_to", b"a"), ("REPLY_TOPIC", b"b"))

    with pytest.raises(MessageError) as caught:
        _decode(b"hi", headers, reply_topics={"a", "b"})
    assert caught.value.reason is Reason.REPLY_TOPIC_DENIED


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        (replace(examples.QUERY, id="a b"), Reason.BAD_FORMAT),
        (replace(examples.QUERY, text=""), Reason.EMPTY_TEXT),
        (replace(examples.QUERY, text="\ud800"), Reason.INVALID_UTF8),
        (replace(examples.QUERY, text_pair="a" * 40_000), Reason.TEXT_TOO_LONG),
        (replace(examples.QUERY, ttl_ms=0), Reason.OUT_OF_RANGE),
        (replace(examples.QUERY, parameters=QueryParameters(top_k=0)), Reason.OUT_OF_RANGE),
    ],
)
@pytest.mark.parametrize("encoding", ["msgpack", "json"])
def test_a_query_that_would_be_refused_is_not_encoded(
    query: Query, reason: Reason, encoding: Encoding
) -> None:
    """The producer hears of it before it sends."""
    with pytest.raises(MessageError) as caught:
        encode_query(query, encoding=encoding)
    assert caught.value.reason is reason


@pytest.mark.parametrize(
    "changes",
    [{"text_pair": "b"}, {"ttl_ms": 5}, {"parameters": QueryParameters(top_k=1)}],
)
def test_bare_text_carries_nothing_but_text(changes: dict[str, Any]) -> None:
    """What bare text cannot say is not dropped in silence."""
    with pytest.raises(MessageError):
        encode_query(replace(examples.PLAIN_QUERY, **changes), envelope="bare")
