"""Reasons and their statuses, in the code and in the document."""

import re
from pathlib import Path

import pytest

from messages import limits
from messages.answer_codec import decode_answer
from messages.errors import ErrorAnswer, MessageError, Reason, Status, status_of
from messages.query_codec import decode_query
from messages.result import Result
from tests.messages import hostile

DOCUMENT = (Path(__file__).parents[2] / "docs" / "messages.md").read_text()
GOOGLE_RPC_HTTP = {
    "CANCELLED": 499,
    "UNKNOWN": 500,
    "INVALID_ARGUMENT": 400,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "PERMISSION_DENIED": 403,
    "UNAUTHENTICATED": 401,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400,
    "ABORTED": 409,
    "OUT_OF_RANGE": 400,
    "UNIMPLEMENTED": 501,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DATA_LOSS": 500,
}


def _documented_statuses() -> dict[str, Status]:
    line = re.compile(
        r"^\| `([A-Z_0-9]+)` \| ([A-Z_]+) \| (\d+) \| (yes|no) \| .+ \|$", re.MULTILINE
    )
    return {
        reason: Status(code, int(http), retryable == "yes")
        for reason, code, http, retryable in line.findall(DOCUMENT)
    }


def test_the_document_has_every_reason_with_its_status() -> None:
    """No reason more, none less, none different."""
    assert _documented_statuses() == {reason.value: status_of(reason) for reason in Reason}


@pytest.mark.parametrize("reason", list(Reason))
def test_a_status_is_one_of_google_rpc(reason: Reason) -> None:
    """Name and HTTP number belong together."""
    status = status_of(reason)

    assert GOOGLE_RPC_HTTP[status.code] == status.http


def test_the_document_has_every_hostile_record_with_its_reason() -> None:
    """The table of refused input is the list that is tested."""
    line = re.compile(r"^\| (\d+) \| [^|]+ \| ([A-Z_0-9, ]+) \|$", re.MULTILINE)
    documented = {int(row): set(reasons.split(", ")) for row, reasons in line.findall(DOCUMENT)}
    tested: dict[int, set[str]] = {}
    for record in hostile.ALL:
        tested.setdefault(record.row, set()).add(record.reason.value)

    assert documented == tested


@pytest.mark.parametrize(
    "limit",
    [
        limits.MAX_QUERY_BYTES,
        limits.MAX_ESCALATION_BYTES,
        limits.MAX_ANSWER_BYTES,
        limits.MAX_TASK_EVENT_BYTES,
        limits.MAX_BATCH_BYTES,
        limits.MAX_DEPTH,
        limits.MAX_MAP_ITEMS,
        limits.MAX_QUERY_ARRAY_ITEMS,
        limits.MAX_ARRAY_ITEMS,
        limits.MAX_KEY_BYTES,
        limits.MAX_HEADERS,
        limits.MAX_HEADERS_BYTES,
        limits.MAX_TEXT_CHARS,
        limits.MAX_TOKENS,
    ],
)
def test_the_document_has_every_limit(limit: int) -> None:
    """As people write numbers."""
    section = DOCUMENT.partition("## Limits of decoding")[2].partition("\n## ")[0]
    assert re.search(rf"(?<![\d,]){limit:,}(?![\d,])", section)


def test_the_documents_examples_are_messages() -> None:
    """A query, a result and an error that can be copied."""
    query, result, error = re.findall(r"^```json\n(.*?)```$", DOCUMENT, re.MULTILINE | re.DOTALL)
    headers = (("content-type", b"application/json"),)

    incoming = decode_query(query.encode(), None, headers, partition=3, offset=17)
    answer = decode_answer(result.encode(), headers)
    refusal = decode_answer(error.encode(), headers)

    assert incoming.query.parameters.top_k == 3
    assert isinstance(answer, Result)
    assert answer.input_digest == incoming.input_digest
    assert isinstance(refusal, ErrorAnswer)
    assert refusal.reason is Reason.TASK_UNKNOWN


def test_a_detail_is_short() -> None:
    """Whoever raises it."""
    error = MessageError(Reason.BAD_FORMAT, "a" * 1_000)

    assert error.detail == "a" * 200
    assert len(str(error)) < 250
