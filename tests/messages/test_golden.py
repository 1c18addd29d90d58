"""Golden bytes: the format of every message, frozen.

A change here is a change of the wire. Within a major version only additions that old readers may
ignore are allowed; see docs/messages.md.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from messages.answer_codec import decode_answer, encode_answer
from messages.batch_codec import decode_batch, encode_batch
from messages.encoded_message import EncodedMessage
from messages.escalation_codec import decode_escalation, encode_escalation
from messages.query_codec import decode_query, encode_query
from messages.task_event_codec import decode_task_event, encode_task_event
from tests.messages import examples

GOLDEN = Path(__file__).parent / "golden" / "messages.json"


def _query_back(message: EncodedMessage) -> object:
    return decode_query(message.value, b"q-1", message.headers, partition=0, offset=0).query


def _answer_back(message: EncodedMessage) -> object:
    return decode_answer(message.value, message.headers)


CASES: dict[str, tuple[Any, Callable[[], EncodedMessage], Callable[[EncodedMessage], object]]] = {
    "query-msgpack": (examples.QUERY, lambda: encode_query(examples.QUERY), _query_back),
    "query-json": (
        examples.QUERY,
        lambda: encode_query(examples.QUERY, encoding="json"),
        _query_back,
    ),
    "query-plain": (
        examples.PLAIN_QUERY,
        lambda: encode_query(examples.PLAIN_QUERY),
        _query_back,
    ),
    "query-bare": (
        examples.PLAIN_QUERY,
        lambda: encode_query(examples.PLAIN_QUERY, envelope="bare"),
        _query_back,
    ),
    "query-cloudevents": (
        examples.QUERY,
        lambda: encode_query(examples.QUERY, encoding="json", envelope="cloudevents"),
        _query_back,
    ),
    "batch": (
        examples.BATCH,
        lambda: encode_batch(examples.BATCH),
        lambda message: decode_batch(message.value),
    ),
    "escalation": (
        examples.ESCALATION,
        lambda: encode_escalation(examples.ESCALATION),
        lambda message: decode_escalation(message.value),
    ),
    "result-msgpack": (
        examples.RESULT,
        lambda: encode_answer(examples.RESULT, examples.REPLY),
        _answer_back,
    ),
    "result-cloudevents": (
        examples.RESULT,
        lambda: encode_answer(examples.RESULT, examples.CLOUDEVENT_REPLY),
        _answer_back,
    ),
    "result-value": (
        examples.VALUE_RESULT,
        lambda: encode_answer(examples.VALUE_RESULT, examples.CLOUDEVENT_REPLY),
        _answer_back,
    ),
    "result-tags": (
        examples.TAGS_RESULT,
        lambda: encode_answer(examples.TAGS_RESULT, examples.REPLY),
        _answer_back,
    ),
    "result-embedding-msgpack": (
        examples.EMBEDDING_RESULT,
        lambda: encode_answer(examples.EMBEDDING_RESULT, examples.REPLY),
        _answer_back,
    ),
    "result-embedding-json": (
        examples.EMBEDDING_RESULT,
        lambda: encode_answer(examples.EMBEDDING_RESULT, examples.CLOUDEVENT_REPLY),
        _answer_back,
    ),
    "error-msgpack": (
        examples.ERROR,
        lambda: encode_answer(examples.ERROR, examples.REPLY),
        _answer_back,
    ),
    "error-cloudevents": (
        examples.ERROR,
        lambda: encode_answer(examples.ERROR, examples.CLOUDEVENT_REPLY),
        _answer_back,
    ),
    "task-event": (
        examples.TASK_EVENT,
        lambda: encode_task_event(examples.TASK_EVENT),
        lambda message: decode_task_event(message.value),
    ),
    "task-event-embedding": (
        examples.EMBEDDING_TASK_EVENT,
        lambda: encode_task_event(examples.EMBEDDING_TASK_EVENT),
        lambda message: decode_task_event(message.value),
    ),
}


def _as_json(message: EncodedMessage) -> dict[str, Any]:
    return {
        "value": message.value.hex(),
        "headers": [[name, value.hex()] for name, value in message.headers],
    }


@pytest.mark.parametrize("name", CASES)
def test_encoding_yields_the_golden_bytes(name: str) -> None:
    """Not one byte of a value or a header has changed."""
    golden = json.loads(GOLDEN.read_text())
    _, encode, _ = CASES[name]

    assert _as_json(encode()) == golden[name]


@pytest.mark.parametrize("name", CASES)
def test_golden_bytes_decode_to_the_example(name: str) -> None:
    """What an earlier version wrote is read as it was meant."""
    record = json.loads(GOLDEN.read_text())[name]
    headers = tuple((header, bytes.fromhex(value)) for header, value in record["headers"])
    expected, _, decode = CASES[name]

    assert decode(EncodedMessage(bytes.fromhex(record["value"]), headers)) == expected


def test_every_golden_record_is_tested() -> None:
    """No record is frozen without a case."""
    assert json.loads(GOLDEN.read_text()).keys() == CASES.keys()


if __name__ == "__main__":  # python -m tests.messages.test_golden: writes the file anew
    GOLDEN.parent.mkdir(exist_ok=True)
    frozen = {name: _as_json(encode()) for name, (_, encode, _) in CASES.items()}
    GOLDEN.write_text(json.dumps(frozen, indent=1) + "\n")
