"""From per-token scores to tagged spans of the text (BIO labels)."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

Scores: TypeAlias = NDArray[np.float32]
Span: TypeAlias = tuple[int, int, str]


class WordTagger:
    """Reads tags off the first token of each word, as is usual for BERT taggers (BERT, 5.3)."""

    def __init__(self, backbone_folder: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(backbone_folder / "tokenizer.json"))
        self._tokenizer.encode_special_tokens = True
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def spans(self, text: str, scores: Scores, labels: Sequence[str]) -> tuple[Span, ...]:
        """Return (first character, end character, label) for each tagged span, in text order.

        Args:
            text: The text that was tokenised.
            scores: `[num_tokens, num_labels]`, special tokens included; fewer tokens than the
                text has where it was truncated.
            labels: BIO labels; `O` marks a word without a tag.
        """
        encoding = self._tokenizer.encode(text)
        spans: list[Span] = []
        open_label: str | None = None
        seen_word = -1
        for token in range(min(len(scores), len(encoding.ids))):
            word = encoding.word_ids[token]
            if word is None or word == seen_word:
                continue
            seen_word = word
            span = encoding.word_to_chars(word)
            assert span is not None
            start, end = span
            label = labels[int(scores[token].argmax())]
            prefix, _, name = label.partition("-")
            if label == "O":
                open_label = None
            elif prefix == "I" and open_label == name:
                spans[-1] = (spans[-1][0], end, name)
            else:
                open_label = name or label
                spans.append((start, end, open_label))
        return tuple(spans)
