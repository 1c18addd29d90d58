"""Texts to the token ids of one backbone, for whoever runs rows without a scheduler.

The scheduler does the same with whole windows (`scheduler.tokenisation`): special tokens within a
text are words like any other, and what becomes of a text with more tokens than its task takes is
the task's policy.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from messages.truncation import Truncation, head_and_tail
from tasks.word_tokens import WordToken, word_tokens
from workers.errors import RowError


@dataclass(frozen=True, slots=True, eq=False)
class RowTokens:
    """One text or pair, tokenised."""

    token_ids: NDArray[np.int64]
    """Shape (num_tokens,), special tokens included."""
    words: list[WordToken]
    """Those of the (first) text that the row has a token of."""


class RowTokenizer:
    """The tokenizer of one backbone. Used from one thread: its truncation is set call by call."""

    def __init__(self, backbone_folder: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(backbone_folder / "tokenizer.json"))
        self._tokenizer.encode_special_tokens = True
        self._tokenizer.no_padding()

    def encode(
        self, text: str, text_pair: str | None, max_tokens: int, truncation: Truncation = "head"
    ) -> RowTokens:
        """Tokenise one text, or a pair.

        Args:
            text: The row's text.
            text_pair: Its second text, if any.
            max_tokens: Most tokens of the row, special ones included.
            truncation: What becomes of a longer one; `head_and_tail` is for one text.

        Raises:
            RowError: If the text holds nothing that the tokenizer keeps, there is no room, or it is
                too long for a task that does not cut.
        """
        num_special = self._tokenizer.num_special_tokens_to_add(text_pair is not None)
        if max_tokens <= num_special:
            raise RowError(f"{max_tokens} tokens leave no room for a text: raise max_tokens")
        if truncation == "head":
            self._tokenizer.enable_truncation(max_tokens, strategy="longest_first")
        else:
            self._tokenizer.no_truncation()
        encoding = self._tokenizer.encode(text, text_pair)
        if len(encoding.ids) <= num_special:
            raise RowError("the text holds nothing that a model can read")
        ids = encoding.ids
        if len(ids) > max_tokens and truncation == "refuse":
            raise RowError(
                f"the text has {len(ids)} tokens, the task takes {max_tokens}: shorten it"
            )
        if len(ids) > max_tokens:
            ids = head_and_tail(ids, max_tokens)
        return RowTokens(
            np.array(ids, np.int64),
            word_tokens(text, encoding.offsets, encoding.sequence_ids),
        )
