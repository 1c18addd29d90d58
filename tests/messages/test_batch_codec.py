"""Batches: what goes in comes out, compactly; what contradicts itself is refused."""

from dataclasses import replace
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest
from hypothesis import HealthCheck, given, settings

from messages.batch import Batch
from messages.batch_codec import decode_batch, encode_batch
from messages.errors import MessageError, Reason
from messages.origin import Origin
from tests.messages import examples
from tests.messages.strategies import batches


def _tree() -> dict[str, Any]:
    tree: dict[str, Any] = msgpack.unpackb(encode_batch(examples.BATCH).value)
    return tree


def _reason_of(tree: dict[str, Any]) -> Reason:
    with pytest.raises(MessageError) as caught:
        decode_batch(msgpack.packb(tree))
    return caught.value.reason


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(batches)
def test_a_batch_comes_back_as_it_was(batch: Batch) -> None:
    """Rows with and without everything that is optional."""
    assert decode_batch(encode_batch(batch).value) == batch


def test_what_rows_share_stands_once() -> None:
    """A thousand like rows name their topic, their client's headers and their hops once."""
    rows = tuple(
        replace(examples.ROW, origin=replace(examples.ORIGIN, offset=n)) for n in range(1_000)
    )
    value = encode_batch(replace(examples.BATCH, rows=rows)).value

    for shared in (b"petstream.queries", b"kafka_correlationId", b"schedule", b"tenant.replies"):
        assert value.count(shared) == 1
    num_own_bytes = sum(
        len(part)
        for part in (
            examples.ROW.query_id,
            examples.ROW.token_ids,
            examples.ROW.text.encode(),
            (examples.ROW.text_pair or "").encode(),
            examples.ROW.reply.key or b"",
            *(header for _, header in examples.REPLY.headers),
            examples.ORIGINAL.value,
            *(header for _, header in examples.ORIGINAL.headers),
            examples.ROW.input_digest,
            examples.SMALL_OUTPUT.scores,
        )
    )
    assert len(value) / 1_000 < num_own_bytes + 90


def test_a_batch_of_a_later_minor_is_read_without_what_is_new() -> None:
    """A new column does not disturb an older worker."""
    tree = _tree() | {"v": "1.2", "novelty": [1, 2]}

    assert decode_batch(msgpack.packb(tree)) == examples.BATCH


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"v": "2.0"}, Reason.SCHEMA_UNSUPPORTED),
        ({"novelty": 1}, Reason.UNKNOWN_FIELD),
        ({"rows": []}, Reason.OUT_OF_RANGE),
        ({"rows": [[]]}, Reason.MISSING_FIELD),
        ({"rows": 7}, Reason.WRONG_TYPE),
        ({"level": -1}, Reason.OUT_OF_RANGE),
        ({"level": True}, Reason.WRONG_TYPE),
        ({"backbone": "../../etc/passwd"}, Reason.BAD_FORMAT),
        ({"batch_id": ""}, Reason.BAD_FORMAT),
        ({"tasks": []}, Reason.INVALID_BATCH),
        ({"sources": []}, Reason.INVALID_BATCH),
        ({"parameters": []}, Reason.INVALID_BATCH),
        ({"styles": []}, Reason.INVALID_BATCH),
        ({"originals": []}, Reason.INVALID_BATCH),
        ({"originals": [[]] * 2}, Reason.INVALID_BATCH),
        ({"hops": []}, Reason.INVALID_BATCH),
        ({"small_runs": []}, Reason.INVALID_BATCH),
        ({"styles": [["msgpack", "native", None, []]] * 2}, Reason.INVALID_BATCH),
        ({"hops": [[]] * 2}, Reason.INVALID_BATCH),
        ({"styles": [["pickle", "native", None, []]] * 2}, Reason.OUT_OF_RANGE),
    ],
)
def test_a_corrupt_batch_is_refused(changes: dict[str, object], reason: Reason) -> None:
    """Unknown versions, wrong shapes, references to what is not there."""
    assert _reason_of(_tree() | changes) is reason


@pytest.mark.parametrize("place", range(19))
@pytest.mark.parametrize("wrong", [None, True, -1, 1.5, "", b"", [], {}, 2**64 - 1, float("nan")])
def test_a_corrupt_row_is_refused_or_means_something_else(place: int, wrong: object) -> None:
    """No value of any field of a row brings the decoder down or is quietly replaced."""
    tree = _tree()
    tree["rows"][0][place] = wrong
    value = msgpack.packb(tree)

    try:
        batch = decode_batch(value)
    except MessageError:
        return
    assert encode_batch(batch).value != encode_batch(examples.BATCH).value


def test_two_rows_of_one_origin_are_refused() -> None:
    """One query is never answered twice by one batch."""
    tree = _tree()
    tree["rows"][1][:2] = tree["rows"][0][:2]
    assert _reason_of(tree) is Reason.INVALID_BATCH


def test_one_origin_by_two_sources_is_refused() -> None:
    """A source that stands twice does not hide it."""
    tree = _tree()
    tree["sources"] *= 2
    tree["rows"][1][:2] = [1, tree["rows"][0][1]]
    assert _reason_of(tree) is Reason.INVALID_BATCH


def test_rows_of_a_task_must_stand_together() -> None:
    """The engine takes segments."""
    rows = tuple(
        replace(
            examples.ROW, origin=Origin("petstream.queries", "", 0, offset), task_index=task_index
        )
        for offset, task_index in enumerate((0, 1, 0))
    )
    with pytest.raises(MessageError) as caught:
        decode_batch(encode_batch(replace(examples.BATCH, rows=rows)).value)
    assert caught.value.reason is Reason.INVALID_BATCH


@pytest.mark.parametrize("token_ids", [b"\x01\x00\x00", b"\x01\x00\x00\x00\x02"])
def test_token_ids_that_are_not_uint32_are_refused(token_ids: bytes) -> None:
    """A cut token would be another word."""
    rows = (replace(examples.ROW, token_ids=token_ids),)
    with pytest.raises(MessageError):
        decode_batch(encode_batch(replace(examples.BATCH, rows=rows)).value)


@pytest.mark.parametrize("scores", [b"\x00\x00\x80", b"\x00\x00\x80?\x00"])
def test_scores_that_are_not_float32_are_refused(scores: bytes) -> None:
    """As in an escalation."""
    small = replace(examples.SMALL_OUTPUT, scores=scores)
    rows = (replace(examples.ROW, small_output=small),)
    with pytest.raises(MessageError):
        decode_batch(encode_batch(replace(examples.BATCH, rows=rows)).value)


@pytest.mark.parametrize("value", [None, b"", b"\x80", bytes(8_388_609)])
def test_what_is_no_batch_at_all_is_refused(value: bytes | None) -> None:
    """Nothing, an empty map, and more than a batch may have."""
    with pytest.raises(MessageError):
        decode_batch(value)
