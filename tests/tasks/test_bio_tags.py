"""Spans of BIO tags, as conlleval reads them."""

from tasks.bio_tags import WordSpan, bio_spans


def _spans(tags: str) -> list[WordSpan]:
    return bio_spans(enumerate(tags.split()))


def test_a_span_goes_on_with_its_own_name_only() -> None:
    assert _spans("B-a I-a I-b B-b I-b") == [(0, 1, "a"), (2, 2, "b"), (3, 4, "b")]


def test_inside_opens_a_span_where_there_is_none() -> None:
    assert _spans("O I-a I-a O I-a") == [(1, 2, "a"), (4, 4, "a")]


def test_a_tag_without_a_prefix_is_one_word() -> None:
    assert _spans("verb verb O") == [(0, 0, "verb"), (1, 1, "verb")]


def test_an_absent_word_ends_a_span() -> None:
    assert bio_spans([(0, "B-a"), (2, "I-a")]) == [(0, 0, "a"), (1, 1, "a")]


def test_names_may_hold_hyphens() -> None:
    assert _spans("B-creative-work I-creative-work") == [(0, 1, "creative-work")]
