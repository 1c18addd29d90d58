"""Task events: what goes in comes out; what contradicts itself is refused."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings

from messages.errors import MessageError, Reason
from messages.strict_json import write_json
from messages.task_event import TaskEvent
from messages.task_event_codec import decode_task_event, encode_task_event
from tests.messages import examples
from tests.messages.strategies import task_events


def _tree() -> dict[str, Any]:
    tree: dict[str, Any] = json.loads(encode_task_event(examples.TASK_EVENT).value)
    return tree


@settings(deadline=None)
@given(task_events())
def test_a_task_event_comes_back_as_it_was(event: TaskEvent) -> None:
    """For any revisions, levels and aliases."""
    assert decode_task_event(encode_task_event(event).value) == event


def test_a_task_event_of_a_later_minor_is_read_without_what_is_new() -> None:
    """Also where the news is deep within."""
    tree = _tree() | {"v": "1.2", "novelty": 1}
    tree["revisions"][0]["levels"][0]["novelty"] = 1

    assert decode_task_event(write_json(tree)) == examples.TASK_EVENT


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"v": "2.0"}, Reason.SCHEMA_UNSUPPORTED),
        ({"novelty": 1}, Reason.UNKNOWN_FIELD),
        ({"name": "../x"}, Reason.BAD_FORMAT),
        ({"retired": 1}, Reason.WRONG_TYPE),
        ({"revisions": []}, Reason.OUT_OF_RANGE),
        ({"revisions": [{}]}, Reason.MISSING_FIELD),
        ({"aliases": {"prod": 99}}, Reason.BAD_FORMAT),
        ({"aliases": {"PROD": 2}}, Reason.BAD_FORMAT),
        ({"aliases": {"prod": "2"}}, Reason.WRONG_TYPE),
    ],
)
def test_a_corrupt_task_event_is_refused(changes: dict[str, object], reason: Reason) -> None:
    """Each with its reason."""
    with pytest.raises(MessageError) as caught:
        decode_task_event(write_json(_tree() | changes))
    assert caught.value.reason is reason


@pytest.mark.parametrize(
    ("event", "changes", "reason"),
    [
        (examples.EMBEDDING_TASK_EVENT, {"dimensions": None}, Reason.MISSING_FIELD),
        (examples.EMBEDDING_TASK_EVENT, {"num_labels": 2}, Reason.BAD_FORMAT),
        (examples.EMBEDDING_TASK_EVENT, {"dimensions": 16_385}, Reason.OUT_OF_RANGE),
        (examples.TASK_EVENT, {"num_labels": None}, Reason.MISSING_FIELD),
        (examples.TASK_EVENT, {"dimensions": 2}, Reason.BAD_FORMAT),
    ],
)
def test_an_embedding_has_dimensions_and_every_other_kind_labels(
    event: TaskEvent, changes: dict[str, object], reason: Reason
) -> None:
    """Never both, never neither."""
    tree = json.loads(encode_task_event(event).value)
    tree["revisions"][0] |= changes

    with pytest.raises(MessageError) as caught:
        decode_task_event(write_json(tree))
    assert caught.value.reason is reason


def test_revisions_and_levels_must_ascend() -> None:
    """The last revision is the default, the first level comes first."""
    revisions = _tree() | {}
    revisions["revisions"].reverse()
    levels = _tree()
    levels["revisions"][1]["levels"].reverse()

    for tree in (revisions, levels):
        with pytest.raises(MessageError) as caught:
            decode_task_event(write_json(tree))
        assert caught.value.reason is Reason.BAD_FORMAT


@pytest.mark.parametrize("value", [None, b"", b"{}", bytes(1_048_577)])
def test_what_is_no_task_event_at_all_is_refused(value: bytes | None) -> None:
    """Nothing, an empty object, and more than a task event may have."""
    with pytest.raises(MessageError):
        decode_task_event(value)


@pytest.mark.parametrize(("num_items", "is_accepted"), [(64, True), (65, False)])
def test_json_maps_are_limited_as_those_of_messagepack(num_items: int, is_accepted: bool) -> None:
    """An event of a later minor, too."""
    aliases = {f"a{n}": 2 for n in range(num_items)}
    value = write_json(_tree() | {"v": "1.7", "aliases": aliases})

    if is_accepted:
        assert len(decode_task_event(value).aliases) == num_items
        return
    with pytest.raises(MessageError) as caught:
        decode_task_event(value)
    assert caught.value.reason is Reason.TOO_MANY_ITEMS


def test_json_arrays_are_limited_as_those_of_messagepack() -> None:
    """In a place that the schema does not look at."""
    value = write_json(_tree() | {"v": "1.7", "novelty": {"a": [0] * 65_537}})

    with pytest.raises(MessageError) as caught:
        decode_task_event(value)
    assert caught.value.reason is Reason.TOO_MANY_ITEMS


def test_what_becomes_of_long_texts_is_said_where_it_is_not_the_default() -> None:
    """An event without the field, as older releases write it, means `head`."""
    first, *others = examples.TASK_EVENT.revisions
    levels = tuple(replace(level, truncation="refuse") for level in first.levels)
    event = replace(examples.TASK_EVENT, revisions=(replace(first, levels=levels), *others))

    value = encode_task_event(event).value

    assert decode_task_event(value) == event
    assert value.count(b"truncation") == len(levels)
    assert b"truncation" not in encode_task_event(examples.TASK_EVENT).value
