"""BIO tags of words to spans: the one rule for what a tagging task answers and is judged by."""

from collections.abc import Iterable
from typing import NamedTuple


class WordSpan(NamedTuple):
    """Neighbouring words that are one thing."""

    first: int
    """Position of its first word among the given ones."""
    last: int
    """Of its last word."""
    name: str


def bio_spans(tagged: Iterable[tuple[int, str]]) -> list[WordSpan]:
    """Return the spans of tagged words, in their order.

    `B-x` opens a span and `I-x` goes on with one of x, or opens one where there is none (as
    conlleval reads it). A tag without a prefix is a span of one word; `O` is none.

    Args:
        tagged: Of each word its number in the text, ascending, and its tag. A word that is absent
            ends a span.
    """
    spans: list[WordSpan] = []
    open_name: str | None = None
    previous = -1
    for position, (number, tag) in enumerate(tagged):
        prefix, _, name = tag.partition("-")
        if tag == "O":
            open_name = None
        elif prefix == "I" and open_name == name and previous == number - 1:
            spans[-1] = spans[-1]._replace(last=position)
        else:
            open_name = name or tag
            spans.append(WordSpan(position, position, open_name))
        previous = number
    return spans
