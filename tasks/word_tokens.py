"""Which token speaks for a word of a tagged text: the one rule for training and serving.

A word is what stands between spaces, as `str.split` cuts it, punctuation included: that is what
training rows label. Its tag belongs to the first token within it (BERT, section 5.3).
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_WORD = re.compile(r"\S+")


def split_words(text: str) -> Iterator[re.Match[str]]:
    """Yield the words of a text with their places."""
    return _WORD.finditer(text)


class WordToken(NamedTuple):
    """A word, and the token that speaks for it."""

    number: int
    """Of the word among those of its text, from 0."""
    start: int
    """Its first character."""
    end: int
    """Behind its last character."""
    token: int
    """Index into the row's tokens, special tokens included."""


def word_tokens(
    text: str, offsets: Sequence[tuple[int, int]], sequence_ids: Sequence[int | None]
) -> list[WordToken]:
    """Return the words of a text that the row has a token of, in text order.

    A word is absent where the row was cut before it, or where the tokenizer drops all of it.

    Args:
        text: The row's text; of a pair the first.
        offsets: Of each token of the row, first character and behind the last, in its own text.
        sequence_ids: Of each token 0, 1 for the second text of a pair, None for a special token.
    """
    found: list[WordToken] = []
    words = enumerate(split_words(text))
    word = next(words, None)
    for token, ((start, _), sequence) in enumerate(zip(offsets, sequence_ids, strict=True)):
        if sequence != 0:
            continue
        while word is not None and word[1].end() <= start:
            word = next(words, None)
        if word is None:
            break
        number, match = word
        if match.start() <= start and (not found or found[-1].number != number):
            found.append(WordToken(number, match.start(), match.end(), token))
    return found
