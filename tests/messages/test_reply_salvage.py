"""What can still be read of a record that does not decode."""

import pytest

from messages.answer_codec import decode_answer, encode_answer
from messages.headers import Headers
from messages.reply_salvage import salvage_reply
from tests.messages import examples, hostile

CORRELATION = ("kafka_correlationId", bytes(range(16)))


def test_a_value_with_a_fault_still_names_its_query() -> None:
    """Id and task are taken from the value where they are sound."""
    salvaged = salvage_reply(hostile.packed(text=""), b"key", hostile.MSGPACK_HEADERS)

    assert (salvaged.id, salvaged.task) == ("q-1", "banking77")
    assert salvaged.reply.key == b"key"
    assert salvaged.reply.encoding == "msgpack"


@pytest.mark.parametrize(
    ("value", "key", "headers", "expected"),
    [
        (b"\xc1", b"key", (("ce_id", b"A-1"), ("task", b"t")), ("A-1", "t")),
        (b"\xc1", b"key", (("task", b"t"), ("task", b"u")), ("key", "t")),
        (b"\xc1", b"\xff", (("ce_subject", b"s"),), ("3-17", "s")),
        (b"\xc1", None, (("task", b"../x"),), ("3-17", "")),
        (None, None, (), ("3-17", "")),
        (hostile.packed(id="a\nb", task=7), b"key", (), ("key", "")),
    ],
)
def test_id_and_task_are_looked_for_in_order(
    value: bytes | None, key: bytes | None, headers: Headers, expected: tuple[str, str]
) -> None:
    """Value, `ce_id`, key, place; value, `task`, `ce_subject`. What is malformed is passed over."""
    salvaged = salvage_reply(value, key, headers, partition=3, offset=17)

    assert (salvaged.id, salvaged.task) == expected


def test_without_a_place_there_may_be_no_id() -> None:
    """Then the origin alone identifies the query."""
    assert salvage_reply(b"\xc1", None, ()).id == ""


def test_correlation_is_kept() -> None:
    """A caller that waits hears of the error."""
    reply = salvage_reply(b"\xc1", None, (CORRELATION, *hostile.MSGPACK_HEADERS)).reply

    assert reply.headers == (CORRELATION,)


def test_what_is_too_large_is_not_echoed() -> None:
    """An answer must fit where its query did."""
    headers = [("traceparent", bytes(5_000))] * 100

    reply = salvage_reply(b"\xc1", b"k" * 2_000, headers).reply

    assert reply.key is None
    assert sum(len(value) for _, value in reply.headers) <= 32_768


def test_not_more_is_echoed_than_a_batch_would_carry() -> None:
    """However many headers came."""
    reply = salvage_reply(b"\xc1", None, [("traceparent", b"x")] * 1_000).reply

    assert len(reply.headers) == 32


@pytest.mark.parametrize(
    ("value", "headers", "encoding", "envelope"),
    [
        (b"\xff", hostile.TEXT_HEADERS, "json", "native"),
        (b"\xff", hostile.JSON_HEADERS, "json", "native"),
        (b"\xff", hostile.MSGPACK_HEADERS, "msgpack", "native"),
        (b"\xff", (("content-type", b"application/avro"),), "json", "native"),
        (b"\xff", (), "msgpack", "native"),
        (b"{", (), "json", "native"),
        (b"{", hostile.CLOUDEVENT_HEADERS, "json", "cloudevents"),
        (hostile.structured(data=None), hostile.STRUCTURED_HEADERS, "json", "cloudevents"),
    ],
)
def test_the_error_comes_in_the_language_of_the_query(
    value: bytes, headers: Headers, encoding: str, envelope: str
) -> None:
    """As far as that can be told."""
    reply = salvage_reply(value, None, headers).reply

    assert (reply.encoding, reply.envelope) == (encoding, envelope)
    answer = encode_answer(examples.ERROR, reply)
    assert decode_answer(answer.value, answer.headers) == examples.ERROR


def test_a_structured_event_that_is_refused_is_named_as_the_cause() -> None:
    """Its attributes are in the value."""
    value = hostile.structured(data=None)

    salvaged = salvage_reply(value, None, hostile.STRUCTURED_HEADERS)

    assert (salvaged.id, salvaged.task) == ("A-1", "banking77")
    answer = encode_answer(examples.ERROR, salvaged.reply)
    assert ("ce_causationid", b"A-1") in answer.headers
