"""Every hostile record is refused with its documented reason, and says nothing of its content."""

import pytest

from messages.errors import MessageError
from messages.query_codec import decode_query
from messages.reply_salvage import salvage_reply
from tests.messages.hostile import ALL, Hostile


@pytest.mark.parametrize("hostile", ALL, ids=lambda hostile: f"{hostile.row}: {hostile.name}")
def test_a_hostile_record_is_refused_with_its_reason(hostile: Hostile) -> None:
    """One typed error, the reason of the table, a short printable detail."""
    with pytest.raises(MessageError) as caught:
        decode_query(hostile.value, hostile.key, hostile.headers, partition=3, offset=17)

    assert caught.value.reason is hostile.reason, caught.value
    assert 0 < len(caught.value.detail) <= 200
    assert caught.value.detail.isprintable()


@pytest.mark.parametrize("hostile", ALL, ids=lambda hostile: f"{hostile.row}: {hostile.name}")
def test_a_hostile_record_can_be_answered(hostile: Hostile) -> None:
    """Its error has an id and keeps every limit of an answer."""
    salvaged = salvage_reply(hostile.value, hostile.key, hostile.headers, partition=3, offset=17)

    assert 1 <= len(salvaged.id) <= 64
    assert len(salvaged.reply.key or b"") <= 1_024


def test_no_detail_repeats_the_input() -> None:
    """A secret in any place of a query never comes back in an error."""
    secret = "s3cr3t"
    for hostile in ALL:
        value = (hostile.value or b"").replace(b"hello", secret.encode())
        with pytest.raises(MessageError) as caught:
            decode_query(value, secret.encode() * 300, hostile.headers, partition=0, offset=0)
        assert secret not in caught.value.detail
