"""CloudEvents: requests in binary and structured mode, and their answers."""

import base64
from dataclasses import replace

import pytest

from messages.answer_codec import decode_answer, encode_answer
from messages.errors import MessageError
from messages.headers import Headers
from messages.query import Query
from messages.query_codec import IncomingQuery, decode_query, encode_query
from tests.messages import examples, hostile


def _decode(value: bytes, headers: Headers) -> IncomingQuery:
    return decode_query(value, b"key", headers, partition=3, offset=17)


def _with(*more: tuple[str, bytes]) -> Headers:
    return (*hostile.CLOUDEVENT_HEADERS, *more)


def test_a_binary_event_is_a_query() -> None:
    """Id and subject stand in for the fields that the value does not have."""
    incoming = _decode(b'{"text":"hello"}', _with())

    assert incoming.query == Query("A-1", "banking77", "hello")
    assert incoming.reply.envelope == "cloudevents"
    assert incoming.reply.encoding == "json"


def test_an_id_that_is_no_query_id_is_only_echoed() -> None:
    """CloudEvents allows any string; the answer still names its cause."""
    headers = tuple(pair for pair in _with() if pair[0] != "ce_id")
    event_id = b"partition:0 / offset:12"

    incoming = _decode(b'{"text":"hello"}', (*headers, ("ce_id", event_id)))

    assert incoming.query.id == "key"
    answer = encode_answer(examples.RESULT, incoming.reply)
    assert dict(answer.headers)["ce_causationid"] == event_id


@pytest.mark.parametrize(
    ("text", "epoch_ms"),
    [
        (b"1970-01-01T00:00:00Z", 0),
        (b"2026-11-23T10:00:00.123Z", 1_795_428_000_123),
        (b"2026-11-23T10:00:00.123999999Z", 1_795_428_000_123),
        (b"2026-11-23t12:00:00+02:00", 1_795_428_000_000),
        (b"1969-12-31T23:59:59Z", -1_000),
        (b"9999-12-31T23:59:59.999Z", 253_402_300_799_999),
    ],
)
def test_expirytime_is_a_deadline(text: bytes, epoch_ms: int) -> None:
    """RFC 3339, to the millisecond, rounded down."""
    incoming = _decode(b'{"text":"hello"}', _with(("ce_expirytime", text)))

    assert incoming.query.expires_at_ms == epoch_ms


def test_a_deadline_in_the_value_goes_before_expirytime() -> None:
    """As every field does."""
    headers = _with(("ce_expirytime", b"1970-01-01T00:00:00Z"))

    incoming = _decode(b'{"text":"hello","expires_at_ms":5}', headers)

    assert incoming.query.expires_at_ms == 5


def test_the_deadline_of_an_encoded_event_is_the_querys() -> None:
    """Header and field say the same."""
    headers = dict(encode_query(examples.QUERY, envelope="cloudevents").headers)

    assert headers["ce_expirytime"] == b"2026-11-23T10:40:00.123Z"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "hello"),
        ({"data": "plain words", "datacontenttype": "text/plain"}, "plain words"),
        ({"data": None, "data_base64": base64.b64encode(b'{"text":"b64"}').decode()}, "b64"),
        ({"priority": 3, "flag": True, "ignored": None}, "hello"),
    ],
)
def test_a_structured_event_is_a_query(changes: dict[str, object], text: str) -> None:
    """Data as JSON, as text and as base64."""
    incoming = _decode(hostile.structured(**changes), hostile.STRUCTURED_HEADERS)

    assert incoming.query == Query("A-1", "banking77", text)
    assert incoming.reply.envelope == "cloudevents"
    assert ("ce_id", b"A-1") in incoming.reply.headers


def test_an_answer_is_an_event_of_its_own() -> None:
    """Other type, source and id than the request; cause, correlation and subject kept."""
    reply = _decode(b'{"text":"hello"}', _with(("ce_correlationid", b"order-17"))).reply
    request = dict(_with())

    for answer, kind in (
        (examples.RESULT, b"dev.petstream.inference.result.v1"),
        (examples.ERROR, b"dev.petstream.inference.error.v1"),
    ):
        message = encode_answer(answer, reply)
        headers = dict(message.headers)
        assert len(headers) == len(message.headers)
        assert headers["ce_specversion"] == b"1.0"
        assert headers["ce_type"] == kind
        assert headers["ce_causationid"] == request["ce_id"]
        assert headers["ce_correlationid"] == b"order-17"
        assert headers["ce_subject"] == b"banking77"
        for name in ("ce_id", "ce_source", "ce_type"):
            assert headers[name] != request[name]
        assert decode_answer(message.value, message.headers) == answer


def test_an_answers_id_is_its_querys_origin() -> None:
    """The same after a replay, another for another query or another incarnation of the topic."""

    def id_of(**changes: object) -> bytes:
        origin = replace(examples.ORIGIN, **changes)  # type: ignore[arg-type]
        answer = replace(examples.RESULT, origin=origin)
        return dict(encode_answer(answer, examples.CLOUDEVENT_REPLY).headers)["ce_id"]

    again = replace(examples.RESULT, attempt=5)
    assert dict(encode_answer(again, examples.CLOUDEVENT_REPLY).headers)["ce_id"] == id_of()
    others = [id_of(offset=18), id_of(partition=4), id_of(topic="a"), id_of(topic_id="")]
    assert len({id_of(), *others}) == 5


def test_an_answer_that_is_fed_back_is_refused() -> None:
    """Or it would go round for ever."""
    answer = encode_answer(examples.RESULT, examples.CLOUDEVENT_REPLY)

    with pytest.raises(MessageError, match="is an answer"):
        _decode(answer.value, answer.headers)


@pytest.mark.parametrize("source", ["", "/petstream/x", "a\nb"])
def test_a_source_that_would_be_refused_is_not_encoded(source: str) -> None:
    """The producer hears of it before it sends."""
    with pytest.raises(MessageError):
        encode_query(examples.QUERY, envelope="cloudevents", source=source)
