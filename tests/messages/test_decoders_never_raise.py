"""For any bytes, a decoder returns a message or raises `MessageError`, and nothing else."""

from collections.abc import Callable
from dataclasses import replace

import msgpack  # type: ignore[import-untyped]
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from messages.answer_codec import decode_answer, encode_answer
from messages.batch_codec import decode_batch, encode_batch
from messages.errors import MessageError
from messages.escalation_codec import decode_escalation, encode_escalation
from messages.headers import ECHOED, Headers, origin_from_header, read_headers
from messages.query_codec import decode_query, encode_query
from messages.reply_salvage import salvage_reply
from messages.strict_msgpack import read_msgpack
from messages.task_event_codec import decode_task_event, encode_task_event
from tests.messages import examples, hostile
from tests.messages.strategies import damaged, hostile_bytes

MANY = settings(
    max_examples=400,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def _accepts_or_refuses(decode: Callable[[], object]) -> None:
    try:
        decode()
    except MessageError as error:
        refused = error
    else:
        return
    assert 0 < len(refused.detail) <= 200
    assert refused.detail.isprintable()


QUERY_VALUES = [
    encode_query(examples.QUERY).value,
    encode_query(examples.QUERY, encoding="json").value,
    hostile.structured(),
]
QUERY_FIELDS = ["v", "id", "task", "text", "text_pair", "parameters", "ttl_ms", "data", "level"]
header_values = st.binary(max_size=30) | st.sampled_from(
    [
        b"application/msgpack",
        b"application/json",
        b"application/cloudevents+json",
        b"text/plain",
        b"1.0",
        b"banking77",
        b"2026-11-23T10:00:00Z",
        b"9999-12-31T23:59:59.999999999+23:59",
        b"0001-01-01T00:00:00+14:00",
    ]
)
header_names = st.sampled_from(
    [
        "content-type",
        "task",
        "petstream-version",
        "ce_specversion",
        "ce_source",
        "ce_type",
        "ce_expirytime",
        "kafka_replyTopic",
        "reply_to",
        *sorted(ECHOED),
    ]
) | st.text(max_size=8)
any_headers = st.lists(st.tuples(header_names, st.none() | header_values), max_size=10)


@MANY
@given(hostile_bytes(QUERY_VALUES, QUERY_FIELDS), st.none() | st.binary(max_size=70), any_headers)
def test_decode_query(value: bytes, key: bytes | None, headers: Headers) -> None:
    """Whatever the value, the key and the headers are."""
    for reply_topics in (None, {"tenant.replies"}):
        _accepts_or_refuses(
            lambda topics=reply_topics: decode_query(  # type: ignore[misc]
                value, key, headers, partition=0, offset=0, reply_topics=topics
            )
        )


@MANY
@given(hostile_bytes(QUERY_VALUES, QUERY_FIELDS), st.none() | st.binary(max_size=70), any_headers)
def test_salvage_reply(value: bytes, key: bytes | None, headers: Headers) -> None:
    """Salvaging never raises at all."""
    salvaged = salvage_reply(value, key, headers)

    assert len(salvaged.id) <= 64
    assert len(salvaged.task) <= 129


@MANY
@given(st.data())
def test_what_decodes_travels_on(data: st.DataObject) -> None:
    """A query that is accepted fits into an escalation, a batch and an answer."""
    headers = data.draw(any_headers)
    value = data.draw(st.sampled_from(QUERY_VALUES) | st.just(b"bare text"))
    try:
        incoming = decode_query(value, b"key", headers, partition=3, offset=17)
    except MessageError:
        return
    escalation = replace(examples.ESCALATION, reply=incoming.reply)
    row = replace(examples.ROW, reply=incoming.reply, query_id=incoming.query.id)
    batch = replace(examples.BATCH, rows=(row,))

    assert decode_escalation(encode_escalation(escalation).value) == escalation
    assert decode_batch(encode_batch(batch).value) == batch
    answer = encode_answer(examples.RESULT, incoming.reply)
    assert decode_answer(answer.value, answer.headers) == examples.RESULT


BATCH_VALUE = encode_batch(examples.BATCH).value
ESCALATION_VALUE = encode_escalation(examples.ESCALATION).value
ANSWER_VALUES = [
    encode_answer(answer, reply).value
    for answer in (examples.RESULT, examples.TAGS_RESULT, examples.VALUE_RESULT, examples.ERROR)
    for reply in (examples.REPLY, examples.CLOUDEVENT_REPLY)
]
TASK_EVENT_VALUE = encode_task_event(examples.TASK_EVENT).value


def _field_names(value: bytes) -> list[str]:
    return list(msgpack.unpackb(value))


@MANY
@given(hostile_bytes([BATCH_VALUE], _field_names(BATCH_VALUE)))
def test_decode_batch(value: bytes) -> None:
    """Whatever the value is."""
    _accepts_or_refuses(lambda: decode_batch(value))


@MANY
@given(hostile_bytes([ESCALATION_VALUE], _field_names(ESCALATION_VALUE)))
def test_decode_escalation(value: bytes) -> None:
    """Whatever the value is."""
    _accepts_or_refuses(lambda: decode_escalation(value))


@MANY
@given(hostile_bytes(ANSWER_VALUES, _field_names(ANSWER_VALUES[0])), any_headers)
def test_decode_answer(value: bytes, headers: Headers) -> None:
    """Whatever the value and the headers are."""
    _accepts_or_refuses(lambda: decode_answer(value, headers))


@MANY
@given(hostile_bytes([TASK_EVENT_VALUE], ["v", "name", "retired", "revisions", "aliases"]))
def test_decode_task_event(value: bytes) -> None:
    """Whatever the value is."""
    _accepts_or_refuses(lambda: decode_task_event(value))


@MANY
@given(st.binary(max_size=60) | damaged(b"petstream.queries/AbCdEfGhIjKlMnOpQrStUv/3/17"))
def test_origin_from_header(value: bytes) -> None:
    """Whatever the header is."""
    _accepts_or_refuses(lambda: origin_from_header(value))


@pytest.mark.parametrize("name", [b"bytes", None, 7])
def test_a_header_name_that_is_no_text_is_refused(name: object) -> None:
    """Kafka clients differ in what they make of such a name."""
    headers: list[tuple[str, bytes | None]] = [(name, b"x")]  # type: ignore[list-item]
    _accepts_or_refuses(lambda: read_headers(headers))


@pytest.mark.parametrize("value", range(256))
def test_a_single_byte(value: int) -> None:
    """Every type byte of MessagePack alone, and before a long payload."""
    for data in (bytes([value]), bytes([value]) + b"\xff" * 100, bytes([value]) * 5_000):
        _accepts_or_refuses(
            lambda data=data: read_msgpack(data, max_array_items=64)  # type: ignore[misc]
        )


@pytest.mark.parametrize("name", ["batch", "escalation", "task event", "answer"])
def test_every_cut_of_a_message_is_refused(name: str) -> None:
    """A message that ends early is never taken for a shorter one."""
    value, decode = {
        "batch": (BATCH_VALUE, decode_batch),
        "escalation": (ESCALATION_VALUE, decode_escalation),
        "task event": (TASK_EVENT_VALUE, decode_task_event),
        "answer": (ANSWER_VALUES[0], lambda cut: decode_answer(cut, ())),
    }[name]

    for end in range(len(value)):
        with pytest.raises(MessageError):
            decode(value[:end])
