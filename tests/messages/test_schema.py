"""Versions, and what an error says."""

import pytest

from messages.errors import MessageError, Reason
from messages.query_codec import decode_query
from messages.schema import MAJOR, MINOR, VERSION, check_version, is_query_id, is_task_tag
from tests.messages import hostile


def test_a_version_of_our_major_is_accepted() -> None:
    """And a later minor may hold what we do not know."""
    assert check_version(VERSION) is False
    assert check_version(f"{MAJOR}.0{MINOR}") is False
    assert check_version("1.1") is True
    assert check_version("1.9999") is True


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        (None, Reason.SCHEMA_UNSUPPORTED),
        ("0.0", Reason.SCHEMA_UNSUPPORTED),
        ("2.0", Reason.SCHEMA_UNSUPPORTED),
        ("10.0", Reason.SCHEMA_UNSUPPORTED),
        ("1", Reason.BAD_FORMAT),
        ("1.0.0", Reason.BAD_FORMAT),
        ("1.-1", Reason.BAD_FORMAT),
        ("\u0661.0", Reason.BAD_FORMAT),
        ("1." + "9" * 5_000, Reason.BAD_FORMAT),
        (1.0, Reason.WRONG_TYPE),
        ([], Reason.WRONG_TYPE),
    ],
)
def test_any_other_version_is_refused(version: object, reason: Reason) -> None:
    """Malformed and unsupported are told apart."""
    with pytest.raises(MessageError) as caught:
        check_version(version)
    assert caught.value.reason is reason


@pytest.mark.parametrize("text", ["a", "A-1", "~" * 64, "!#$%&'()*+,/:;<=>?@[]^`{|}"])
def test_ids(text: str) -> None:
    """Anything that can be printed and has no space."""
    assert is_query_id(text)


@pytest.mark.parametrize("text", ["", "a b", "a\n", "\n", "a" * 65, "\u00e4", "\x7f", "\ud800"])
def test_no_ids(text: str) -> None:
    """Python and pydantic agree, see the hostile records."""
    assert not is_query_id(text)


@pytest.mark.parametrize("text", ["a", "0", "a-b_c.d", "a@1", "a@999999999", "a:b", "a" * 64])
def test_task_tags(text: str) -> None:
    """Name, revision, alias."""
    assert is_task_tag(text)


@pytest.mark.parametrize("text", ["", "A", ".a", "a@", "a@01", "a:", "a\n", "a@1\n", "a" * 65])
def test_no_task_tags(text: str) -> None:
    """Python and pydantic agree, see the hostile records."""
    assert not is_task_tag(text)


@pytest.mark.parametrize(
    ("value", "detail"),
    [
        (
            hostile.packed(txt="x"),
            "message: unknown field; known are id, task, text, text_pair, parameters, ttl_ms, "
            "expires_at_ms",
        ),
        (hostile.packed(parameters={"topk": 1}), "parameters: unknown field"),
        (hostile.packed(id="a b"), "id: must be 1 to 64 printable ASCII characters without spaces"),
        (
            hostile.packed(task="A"),
            "task: must be name, name@revision or name:alias, in a-z 0-9 . _ -",
        ),
        (hostile.packed(ttl_ms=0), "ttl_ms: Input should be greater than or equal to 1"),
        (hostile.without("text"), "text: Field required"),
        (
            hostile.packed(parameters={"top_k": 0}),
            "parameters.top_k: Input should be greater than or equal to 1",
        ),
    ],
)
def test_an_error_says_what_to_do(value: bytes, detail: str) -> None:
    """The field by its name, and what it must be."""
    with pytest.raises(MessageError) as caught:
        decode_query(value, None, hostile.MSGPACK_HEADERS, partition=0, offset=0)
    assert caught.value.detail == detail
