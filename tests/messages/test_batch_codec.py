"""Batches: what goes in comes out, compactly; what contradicts itself is refused."""

from dataclasses import replace
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest
from hypothesis import HealthCheck, given, settings

from messages.batch import Batch, BatchRow
from messages.batch_codec import decode_batch, encode_batch
from messages.errors import MessageError, Reason
from messages.original_record import OriginalRecord
from tests.messages import examples
from tests.messages.strategies import batches, extreme_rows


def _tree() -> dict[str, Any]:
    tree: dict[str, Any] = msgpack.unpackb(encode_batch(examples.BATCH).value)
    return tree


def _reason_of(tree: dict[str, Any]) -> Reason:
    with pytest.raises(MessageError) as caught:
        decode_batch(msgpack.packb(tree))
    return caught.value.reason


FEW = settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@FEW
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
            *(header or b"" for _, header in examples.ORIGINAL.headers),
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
    tree = _tree()
    first = tree["rows"][0]
    tree["rows"] = [
        [first[0], offset, first[2], task_index, *first[4:]]
        for offset, task_index in enumerate((0, 1, 0))
    ]
    assert _reason_of(tree) is Reason.INVALID_BATCH


@pytest.mark.parametrize("token_ids", [b"\x01\x00\x00", b"\x01\x00\x00\x00\x02"])
def test_token_ids_that_are_not_uint32_are_refused(token_ids: bytes) -> None:
    """A cut token would be another word."""
    tree = _tree()
    tree["rows"][0][4] = token_ids
    assert _reason_of(tree) in {Reason.INVALID_BATCH, Reason.OUT_OF_RANGE}


@pytest.mark.parametrize("scores", [b"\x00\x00\x80", b"\x00\x00\x80?\x00"])
def test_scores_that_are_not_float32_are_refused(scores: bytes) -> None:
    """As in an escalation."""
    tree = _tree()
    tree["rows"][0][17][1] = scores
    assert _reason_of(tree) is Reason.INVALID_BATCH


ROW = examples.ROW
SMALL = examples.SMALL_OUTPUT


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ((), Reason.OUT_OF_RANGE),
        ((replace(ROW, text="a" * 32_769),), Reason.OUT_OF_RANGE),
        ((replace(ROW, text_pair=""),), Reason.OUT_OF_RANGE),
        ((replace(ROW, token_ids=bytes(4 * 8_193)),), Reason.OUT_OF_RANGE),
        ((replace(ROW, token_ids=bytes(5)),), Reason.INVALID_BATCH),
        ((replace(ROW, reply=replace(ROW.reply, key=bytes(1_025))),), Reason.OUT_OF_RANGE),
        ((replace(ROW, original=OriginalRecord(bytes(262_145))),), Reason.OUT_OF_RANGE),
        ((replace(ROW, original=OriginalRecord(b"", (("h", b""),) * 33)),), Reason.OUT_OF_RANGE),
        ((replace(ROW, input_digest=b"short"),), Reason.OUT_OF_RANGE),
        ((replace(ROW, timings_ms=(("compute_l0", 1.0),) * 33),), Reason.OUT_OF_RANGE),
        ((replace(ROW, timings_ms=(("compute_l0", float("nan")),)),), Reason.OUT_OF_RANGE),
        ((replace(ROW, small_output=replace(SMALL, scores=bytes(262_148))),), Reason.OUT_OF_RANGE),
        ((replace(ROW, small_output=replace(SMALL, scores=bytes(5))),), Reason.INVALID_BATCH),
        ((replace(ROW, small_output=replace(SMALL, confidence=1.1)),), Reason.OUT_OF_RANGE),
        ((replace(ROW, query_id="a b"),), Reason.BAD_FORMAT),
        ((replace(ROW, text="\ud800"),), Reason.INVALID_UTF8),
        ((ROW, ROW), Reason.INVALID_BATCH),
        ((replace(ROW, task_index=2),), Reason.INVALID_BATCH),
    ],
)
def test_what_would_be_refused_is_not_written(rows: tuple[BatchRow, ...], reason: Reason) -> None:
    """A batch that no worker can read would lose the queries in it."""
    with pytest.raises(MessageError) as caught:
        encode_batch(replace(examples.BATCH, rows=rows))
    assert caught.value.reason is reason


@pytest.mark.parametrize(("num_rows", "reason"), [(33, Reason.PAYLOAD_TOO_LARGE), (31, None)])
def test_a_batch_over_its_limit_is_not_written(num_rows: int, reason: Reason | None) -> None:
    """Its size is known only once it is encoded."""
    row = replace(ROW, original=OriginalRecord(bytes(262_000)))
    rows = tuple(replace(row, origin=replace(ROW.origin, offset=n)) for n in range(num_rows))
    batch = replace(examples.BATCH, rows=rows)

    if reason is None:
        assert decode_batch(encode_batch(batch).value) == batch
        return
    with pytest.raises(MessageError) as caught:
        encode_batch(batch)
    assert caught.value.reason is reason


@FEW
@given(batches, extreme_rows)
def test_what_is_written_is_read(batch: Batch, row: BatchRow) -> None:
    """At the edge of every limit: refused by the encoder, or accepted by the decoder."""
    batch = replace(batch, rows=(*batch.rows, row))
    try:
        value = encode_batch(batch).value
    except MessageError:
        return
    assert decode_batch(value) == batch


@pytest.mark.parametrize("value", [None, b"", b"\x80", bytes(8_388_609)])
def test_what_is_no_batch_at_all_is_refused(value: bytes | None) -> None:
    """Nothing, an empty map, and more than a batch may have."""
    with pytest.raises(MessageError):
        decode_batch(value)
