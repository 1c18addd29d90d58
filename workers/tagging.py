"""Tagging at serving: which tokens speak for the words of a row, and spans from BIO labels."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from tasks.bio_tags import bio_spans
from tasks.word_tokens import WordToken
from workers.row_tokenizer import RowTokenizer

Scores: TypeAlias = NDArray[np.float32]
Span: TypeAlias = tuple[int, int, str]


class WordFinder:
    """Finds the words of rows. May be used from any thread."""

    def __init__(self, backbone_folder: Path) -> None:
        self._tokenizer = RowTokenizer(backbone_folder)
        self._lock = threading.Lock()
        """Its tokenizer is for one thread at a time."""

    def words(
        self, text: str, text_pair: str | None, token_ids: NDArray[np.int64]
    ) -> list[WordToken]:
        """Return the words of a row that it has a token of; of a pair, those of the first text.

        Args:
            text: The row's text.
            text_pair: Its second text, if any.
            token_ids: What the text, and its pair, were cut into and down to.

        Raises:
            ValueError: If this tokenizer does not cut them into these tokens.
        """
        # A row that was not cut is not cut by its own length either.
        with self._lock:
            row = self._tokenizer.encode(text, text_pair, len(token_ids))
        if not np.array_equal(row.token_ids, token_ids):
            raise ValueError("the row's tokens are not those of its text")
        return row.words


def character_spans(
    words: Sequence[WordToken], scores: Scores, labels: Sequence[str]
) -> tuple[Span, ...]:
    """Return (first character, end character, label) for each tagged span, in text order.

    Args:
        words: In text order.
        scores: `[num_words, num_labels]`.
        labels: BIO labels (`tasks.bio_tags`).
    """
    best = scores.argmax(axis=-1).tolist()
    tagged = [(word.number, labels[index]) for word, index in zip(words, best, strict=True)]
    return tuple(
        (words[span.first].start, words[span.last].end, span.name) for span in bio_spans(tagged)
    )
