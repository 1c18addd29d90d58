"""Answers: both encodings, readable JSON, headers, versions."""

import json
import struct
from dataclasses import replace

import msgpack  # type: ignore[import-untyped]
import numpy as np
import pytest
from hypothesis import given, settings

from messages.answer_codec import decode_answer, encode_answer
from messages.errors import ErrorAnswer, MessageError, Reason, status_of
from messages.headers import origin_from_header
from messages.limits import MAX_ANSWER_BYTES, MAX_DIMENSIONS
from messages.reply import ReplyAddress
from messages.result import Result
from messages.strict_json import write_json
from tests.messages import examples
from tests.messages.strategies import errors, replies, results

JSON_HEADERS = (("content-type", b"application/json"),)


@settings(deadline=None)
@given(results() | errors, replies)
def test_an_answer_comes_back_as_it_was(answer: Result | ErrorAnswer, reply: ReplyAddress) -> None:
    """For every kind of task, encoding and envelope."""
    message = encode_answer(answer, reply)

    assert decode_answer(message.value, message.headers) == answer


def test_a_result_in_json_can_be_read_by_people() -> None:
    """Names, not numbers; the digest as hex."""
    value = encode_answer(examples.RESULT, examples.CLOUDEVENT_REPLY).value

    assert json.loads(value) == {
        "v": "1.0",
        "id": "0198f2aa-7c1e-7a4b-8f3e-0123456789ab",
        "task": "banking77",
        "task_revision": 3,
        "labels": ["card_arrival", "card_linking"],
        "scores": [0.875, 0.125],
        "level": 1,
        "confidence": 0.875,
        "kept_tokens": 9,
        "timings_ms": {"queue": 1.5, "schedule": 0.25},
        "origin": {
            "topic": "petstream.queries",
            "topic_id": "AbCdEfGhIjKlMnOpQrStUv",
            "partition": 3,
            "offset": 17,
        },
        "input_digest": examples.RESULT.input_digest.hex(),
        "batch_id": "b-1",
        "attempt": 2,
    }
    assert b"\n" not in value


def test_an_error_in_json_says_what_to_do_about_it() -> None:
    """Code, HTTP status, reason, message, and whether to try again."""
    value = encode_answer(examples.ERROR, examples.CLOUDEVENT_REPLY).value

    assert json.loads(value)["error"] == {
        "code": "DEADLINE_EXCEEDED",
        "status": 504,
        "reason": "DEADLINE_PAST",
        "domain": "petstream",
        "message": "the deadline passed 12 ms before the query was scheduled",
        "retryable": True,
        "stage": "schedule",
    }


def test_headers_say_enough_to_route_without_decoding() -> None:
    """Task, id, origin, kind, and the reason of an error; then what the caller sent."""
    result = encode_answer(examples.RESULT, examples.REPLY)
    error = encode_answer(examples.ERROR, examples.REPLY)

    assert result.headers[:5] == (
        ("content-type", b"application/msgpack"),
        ("task", b"banking77"),
        ("petstream-id", b"0198f2aa-7c1e-7a4b-8f3e-0123456789ab"),
        ("petstream-origin", b"petstream.queries/AbCdEfGhIjKlMnOpQrStUv/3/17"),
        ("petstream-kind", b"result"),
    )
    assert result.headers[5:] == examples.REPLY.headers
    assert ("petstream-kind", b"error") in error.headers
    assert ("petstream-error-code", b"DEADLINE_PAST") in error.headers
    assert error.headers[6:] == examples.REPLY.headers


@settings(deadline=None)
@given(results())
def test_the_origin_can_be_read_from_its_header(answer: Result) -> None:
    """De-duplication needs no decoding."""
    headers = dict(encode_answer(answer, examples.REPLY).headers)

    assert origin_from_header(headers["petstream-origin"]) == answer.origin


def test_a_correlation_by_cloudevents_name_is_echoed_to_any_caller() -> None:
    """`ce_correlationid` alone does not make a query a CloudEvent."""
    reply = ReplyAddress(key=None, headers=(("ce_correlationid", b"7"), ("ce_id", b"x")))

    names = [name for name, _ in encode_answer(examples.RESULT, reply).headers]

    assert "ce_correlationid" in names
    assert "ce_id" not in names


def test_a_vector_takes_five_bytes_a_number_and_any_reader_reads_it() -> None:
    """In MessagePack as an array of float32, which is the same array to every library."""
    vector = tuple(float(number) for number in np.random.default_rng(0).normal(size=384))
    rounded = tuple(np.array(vector, np.float32).tolist())
    answer = replace(examples.EMBEDDING_RESULT, embedding=rounded)

    packed = encode_answer(answer, examples.REPLY).value
    shortened = encode_answer(replace(answer, embedding=rounded[:-100]), examples.REPLY).value

    assert len(packed) - len(shortened) == 500
    assert tuple(msgpack.unpackb(packed)["embedding"]) == rounded


def test_a_vector_in_json_holds_the_very_float32_numbers() -> None:
    """Also the least and the largest."""
    value = encode_answer(examples.EMBEDDING_RESULT, examples.CLOUDEVENT_REPLY).value

    found = np.array(json.loads(value)["embedding"], np.float32)

    assert tuple(found.tolist()) == examples.EMBEDDING_RESULT.embedding


def test_the_longest_vector_fits_into_an_answer() -> None:
    """Each number of as many characters as a float32 can take, in either encoding."""
    number = struct.unpack("<f", b"\xff\xff\x7f\x80")[0]
    answer = replace(examples.EMBEDDING_RESULT, embedding=(number,) * MAX_DIMENSIONS)

    for reply in (examples.REPLY, examples.CLOUDEVENT_REPLY):
        message = encode_answer(answer, reply)
        assert len(message.value) < MAX_ANSWER_BYTES // 2
        assert decode_answer(message.value, message.headers) == answer


def test_a_number_beyond_float32_is_not_encoded() -> None:
    """It is no output of an engine."""
    answer = replace(examples.EMBEDDING_RESULT, embedding=(0.5, 1e300))

    with pytest.raises(MessageError) as caught:
        encode_answer(answer, examples.REPLY)
    assert caught.value.reason is Reason.OUT_OF_RANGE


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("reply", [examples.REPLY, examples.CLOUDEVENT_REPLY])
def test_an_answer_that_is_not_finite_is_not_encoded(number: float, reply: ReplyAddress) -> None:
    """No reader would accept it."""
    for answer in (
        replace(examples.RESULT, confidence=number),
        replace(examples.RESULT, scores=(0.5, number)),
        replace(examples.VALUE_RESULT, value=number),
        replace(examples.EMBEDDING_RESULT, embedding=(0.5, number)),
    ):
        with pytest.raises(MessageError) as caught:
            encode_answer(answer, reply)
        assert caught.value.reason is Reason.NAN_OUTPUT


def test_a_softmax_that_rounds_above_one_is_still_an_answer() -> None:
    """float32 sums of probabilities do."""
    answer = replace(examples.RESULT, confidence=1.0000001)
    message = encode_answer(answer, examples.REPLY)

    assert decode_answer(message.value, message.headers) == answer


def test_an_answer_of_a_later_minor_is_read_without_what_is_new() -> None:
    """A client may be older than the service."""
    fields = json.loads(encode_answer(examples.RESULT, examples.CLOUDEVENT_REPLY).value)
    fields |= {"v": "1.3", "novelty": [1, 2]}

    assert decode_answer(write_json(fields), JSON_HEADERS) == examples.RESULT


def test_a_reason_of_a_later_minor_is_unrecognised() -> None:
    """The message says what it was."""
    fields = json.loads(encode_answer(examples.ERROR, examples.CLOUDEVENT_REPLY).value)
    fields["error"] |= {"reason": "SOMETHING_NEW", "novelty": 1}
    fields["v"] = "1.3"

    answer = decode_answer(write_json(fields), JSON_HEADERS)

    assert isinstance(answer, ErrorAnswer)
    assert answer.reason is Reason.UNRECOGNISED
    assert answer.message == examples.ERROR.message
    assert status_of(answer.reason).retryable is False


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"v": "2.0"}, Reason.SCHEMA_UNSUPPORTED),
        ({"v": None}, Reason.SCHEMA_UNSUPPORTED),
        ({"novelty": 1}, Reason.UNKNOWN_FIELD),
        ({"scores": [1.0]}, Reason.BAD_FORMAT),
        ({"level": 0.0}, Reason.WRONG_TYPE),
        ({"input_digest": "xyz"}, Reason.BAD_FORMAT),
        ({"value": 0.5}, Reason.BAD_FORMAT),
        ({"tags": []}, Reason.BAD_FORMAT),
        ({"embedding": [0.5]}, Reason.BAD_FORMAT),
        ({"embedding": []}, Reason.OUT_OF_RANGE),
        ({"embedding": [0.5] * 16_385}, Reason.OUT_OF_RANGE),
        ({"embedding": ["a"]}, Reason.WRONG_TYPE),
        ({"embedding": [True]}, Reason.WRONG_TYPE),
        ({"tags": [[1, 2]]}, Reason.OUT_OF_RANGE),
        ({"tags": [["a", 2, "b"]]}, Reason.WRONG_TYPE),
        ({"tags": [[5, 2, "b"]]}, Reason.WRONG_TYPE),
    ],
)
def test_a_malformed_answer_is_refused(changes: dict[str, object], reason: Reason) -> None:
    """Clients get a typed error, too."""
    fields = json.loads(encode_answer(examples.RESULT, examples.CLOUDEVENT_REPLY).value)

    with pytest.raises(MessageError) as caught:
        decode_answer(write_json(fields | changes), JSON_HEADERS)
    assert caught.value.reason is reason


def test_an_answer_in_another_content_type_is_refused() -> None:
    """An answer is never bare text."""
    with pytest.raises(MessageError) as caught:
        decode_answer(b"hi", (("content-type", b"text/plain"),))
    assert caught.value.reason is Reason.CONTENT_TYPE_UNSUPPORTED
