"""Rows on their way: what planning sees of them, and how a batch of them is called."""

import dataclasses

from messages.batch_codec import decode_batch
from messages.errors import Reason
from messages.origin import Origin
from messages.query import NO_PARAMETERS
from messages.reply import ReplyAddress
from messages.task_event import TaskLevel, TaskReference
from scheduler.batch_assembly import BatchHeading, EncodedBatch, batch_id, encode_within
from scheduler.rows import PendingRow, Refusal, columns_of
from transport.records import Record


def _row(
    offset: int, *, topic_id: str = "A" * 22, task: str = "snips", num_tokens: int = 1
) -> PendingRow:
    return PendingRow(
        record=Record("q", 0, offset, None, None, (), 0),
        origin=Origin("q", topic_id, 0, offset),
        query_id=f"q{offset}",
        task=TaskReference(task, 1, "sha256:" + "0" * 64),
        level=TaskLevel(0, "minilm-l3", f"kind of {task}", 128),
        text="a",
        text_pair=None,
        kept_words=None,
        parameters=NO_PARAMETERS,
        reply=ReplyAddress(None),
        input_digest=b"12345678",
        appended_ms=0,
        deadline_ms=None,
        timings_ms=(),
        small_output=None,
        attempt=1,
        token_ids=b"\x01\x00\x00\x00" * num_tokens,
    )


def test_order_does_not_matter() -> None:
    """Order does not matter."""
    assert batch_id([_row(1), _row(2), _row(30)], 0) == batch_id([_row(30), _row(1), _row(2)], 0)


def test_every_row_counts() -> None:
    """Every row counts."""
    rows = [_row(1), _row(2)]

    ids = {batch_id(some, 0) for some in (rows, rows[:1], rows[1:], [*rows, _row(3)])}

    assert len(ids) == 4


def test_a_second_level_of_the_same_rows_is_another_batch() -> None:
    """A second level of the same rows is another batch."""
    assert batch_id([_row(1)], 0) != batch_id([_row(1)], 1)


def test_a_topic_made_anew_has_other_batches() -> None:
    """A topic made anew has other batches."""
    assert batch_id([_row(1)], 0) != batch_id([_row(1, topic_id="B" * 22)], 0)


def test_the_number_of_the_attempt_does_not_matter() -> None:
    """The number of the attempt does not matter."""
    again = dataclasses.replace(_row(1), attempt=2)

    assert batch_id([_row(1)], 0) == batch_id([again], 0)


def test_planning_sees_tasks_kinds_and_lengths() -> None:
    """Tasks are numbered as they come, and each keeps its own kind."""
    rows = [
        _row(0, task="b", num_tokens=5),
        _row(1, task="b", num_tokens=6),
        _row(2, task="a", num_tokens=7),
        _row(3, task="c", num_tokens=8),
        _row(4, task="a", num_tokens=9),
    ]

    columns = columns_of(rows)

    assert columns.task_index.tolist() == [0, 0, 1, 2, 1]
    assert columns.num_tokens.tolist() == [5, 6, 7, 8, 9]
    assert columns.pet_kinds == ("kind of b", "kind of a", "kind of c")


def test_a_row_that_no_batch_can_hold_costs_no_other() -> None:
    """It is refused with the reason its reader would have; the rest leave in as few batches."""
    rows = [_row(offset) for offset in range(8)]
    rows[5].text = "a" * 40_000
    heading = BatchHeading(0, "minilm-l3", "fixed", 0, 0.0)

    encoded = list(encode_within(rows, heading, 8_000_000))

    batches = [decode_batch(e.message.value) for e in encoded if isinstance(e, EncodedBatch)]
    refusals = [e for e in encoded if isinstance(e, Refusal)]
    assert [[row.origin.offset for row in b.rows] for b in batches] == [[0, 1, 2, 3], [4], [6, 7]]
    assert [r.answer.id for r in refusals] == ["q5"]
    assert refusals[0].answer.reason is Reason.OUT_OF_RANGE
    assert refusals[0].answer.stage == "schedule"
