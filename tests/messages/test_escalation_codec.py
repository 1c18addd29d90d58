"""Escalations: what goes in comes out; what contradicts itself is refused."""

from dataclasses import replace
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest
from hypothesis import HealthCheck, given, settings

from messages.errors import MessageError, Reason
from messages.escalation import Escalation
from messages.escalation_codec import decode_escalation, encode_escalation
from messages.original_record import OriginalRecord
from tests.messages import examples
from tests.messages.strategies import escalations, extreme_escalations


def _tree() -> dict[str, Any]:
    tree: dict[str, Any] = msgpack.unpackb(encode_escalation(examples.ESCALATION).value)
    return tree


FEW = settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@FEW
@given(escalations)
def test_an_escalation_comes_back_as_it_was(escalation: Escalation) -> None:
    """With and without everything that is optional."""
    assert decode_escalation(encode_escalation(escalation).value) == escalation


def test_an_escalation_of_a_later_minor_is_read_without_what_is_new() -> None:
    """Workers may be newer than the scheduler."""
    tree = _tree() | {"v": "1.2", "novelty": {"a": 1}}

    assert decode_escalation(msgpack.packb(tree)) == examples.ESCALATION


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"v": "2.0"}, Reason.SCHEMA_UNSUPPORTED),
        ({"novelty": 1}, Reason.UNKNOWN_FIELD),
        ({"origin": ["petstream.queries", "", 3]}, Reason.MISSING_FIELD),
        ({"origin": ["petstream/queries", "", 3, 17]}, Reason.BAD_FORMAT),
        ({"origin": ["petstream.queries", "", 3, -1]}, Reason.OUT_OF_RANGE),
        ({"task": ["banking77", 0, examples.REFERENCE.digest]}, Reason.OUT_OF_RANGE),
        ({"task": ["banking77", 3, "sha256:no"]}, Reason.BAD_FORMAT),
        ({"next_level": 0}, Reason.OUT_OF_RANGE),
        ({"text": ""}, Reason.OUT_OF_RANGE),
        ({"kept_words": [2, 1]}, Reason.BAD_FORMAT),
        ({"kept_words": [1, 1]}, Reason.BAD_FORMAT),
        ({"kept_words": [-1]}, Reason.OUT_OF_RANGE),
        ({"kept_words": [0.0]}, Reason.WRONG_TYPE),
        ({"small_output": [0, b"abc", 0.5, "b-0"]}, Reason.BAD_FORMAT),
        ({"small_output": [0, b"abcde", 0.5, "b-0"]}, Reason.BAD_FORMAT),
        ({"small_output": [0, b"abcd", 1.5, "b-0"]}, Reason.OUT_OF_RANGE),
        ({"small_output": [0, b"abcd", float("nan"), "b-0"]}, Reason.OUT_OF_RANGE),
        ({"input_digest": b"short"}, Reason.OUT_OF_RANGE),
        ({"timings_ms": [["queue", float("inf")]]}, Reason.OUT_OF_RANGE),
        ({"attempt": 0}, Reason.OUT_OF_RANGE),
    ],
)
def test_a_corrupt_escalation_is_refused(changes: dict[str, object], reason: Reason) -> None:
    """Each with its reason."""
    with pytest.raises(MessageError) as caught:
        decode_escalation(msgpack.packb(_tree() | changes))
    assert caught.value.reason is reason


@pytest.mark.parametrize("value", [None, b"", b"\x80", bytes(1_048_577)])
def test_what_is_no_escalation_at_all_is_refused(value: bytes | None) -> None:
    """Nothing, an empty map, and more than an escalation may have."""
    with pytest.raises(MessageError):
        decode_escalation(value)


def test_clocks_that_differ_do_not_lose_a_query() -> None:
    """A hop may seem to take less than no time."""
    tree = _tree() | {"timings_ms": [["queue", -3.5]]}

    assert decode_escalation(msgpack.packb(tree)).timings_ms == (("queue", -3.5),)


ONE = examples.ESCALATION
SMALL = examples.SMALL_OUTPUT


@pytest.mark.parametrize("scores", [b"", bytes(4), bytes(4 * 65_536)])
def test_scores_may_be_none_one_or_as_many_as_a_task_has_labels(scores: bytes) -> None:
    """Tagging takes none over to the next level."""
    escalation = replace(ONE, small_output=replace(SMALL, scores=scores))

    assert decode_escalation(encode_escalation(escalation).value) == escalation


@pytest.mark.parametrize(
    ("escalation", "reason"),
    [
        (replace(ONE, text="a" * 32_769), Reason.OUT_OF_RANGE),
        (replace(ONE, text=""), Reason.OUT_OF_RANGE),
        (replace(ONE, kept_words=(3, 3)), Reason.BAD_FORMAT),
        (replace(ONE, kept_words=(32_768,)), Reason.OUT_OF_RANGE),
        (replace(ONE, next_level=0), Reason.OUT_OF_RANGE),
        (replace(ONE, next_level=8), Reason.OUT_OF_RANGE),
        (replace(ONE, reply=replace(ONE.reply, key=bytes(1_025))), Reason.OUT_OF_RANGE),
        (replace(ONE, original=OriginalRecord(bytes(262_145))), Reason.OUT_OF_RANGE),
        (replace(ONE, small_output=replace(SMALL, scores=bytes(262_148))), Reason.OUT_OF_RANGE),
        (replace(ONE, small_output=replace(SMALL, scores=bytes(3))), Reason.BAD_FORMAT),
        (replace(ONE, small_output=replace(SMALL, confidence=-0.1)), Reason.OUT_OF_RANGE),
        (replace(ONE, timings_ms=(("compute_l0", float("inf")),)), Reason.OUT_OF_RANGE),
        (replace(ONE, deadline_ms=2**60), Reason.OUT_OF_RANGE),
        (
            replace(ONE, original=OriginalRecord(b"", (("h", bytes(32_768)),) * 32)),
            Reason.PAYLOAD_TOO_LARGE,
        ),
    ],
)
def test_what_would_be_refused_is_not_written(escalation: Escalation, reason: Reason) -> None:
    """An escalation that no scheduler can read would lose its query."""
    with pytest.raises(MessageError) as caught:
        encode_escalation(escalation)
    assert caught.value.reason is reason


@FEW
@given(extreme_escalations)
def test_what_is_written_is_read(escalation: Escalation) -> None:
    """At the edge of every limit: refused by the encoder, or accepted by the decoder."""
    try:
        value = encode_escalation(escalation).value
    except MessageError:
        return
    assert decode_escalation(value) == escalation
