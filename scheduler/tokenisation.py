"""Texts to token ids, with the tokenizer of the backbone that will read them.

The tokenizers are Rust and let go of the interpreter lock while a whole window is encoded. Special
tokens that a caller writes into a text are words like any other: "[SEP]" in a text must not become
the separator. What becomes of a text with more tokens than its task takes is the task's policy.
"""

import contextlib
import logging
import os
import sys
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Tokenizer

from messages.errors import MessageError, Reason
from messages.truncation import Truncation, head_and_tail

logger = logging.getLogger(__name__)

TextInput = str | tuple[str, str]
"""A text, or a text and its pair."""

TOKEN_ID_BYTES = 4
"""Ids travel as little-endian uint32."""


class BackboneTokenizer:
    """The tokenizer of one backbone. Used from one thread: its truncation is set call by call."""

    def __init__(self, tokenizer_file: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(tokenizer_file))
        self._tokenizer.encode_special_tokens = True
        self._tokenizer.no_padding()
        self._num_special = {
            is_pair: self._tokenizer.num_special_tokens_to_add(is_pair) for is_pair in (False, True)
        }

    def encode(
        self, texts: Sequence[TextInput], max_tokens: int, truncation: Truncation = "head"
    ) -> list[bytes | MessageError]:
        """Return for each text its token ids, or why it has none: a failure stays its own row's.

        Args:
            texts: Any strings, or pairs of them; for `head_and_tail` strings only.
            max_tokens: Most tokens of a row, special ones included.
            truncation: What becomes of longer ones.
        """
        if truncation == "head":
            self._tokenizer.enable_truncation(max_tokens, strategy="longest_first")
        else:
            self._tokenizer.no_truncation()
        try:
            encodings = self._tokenizer.encode_batch_fast(list(texts))
        except BaseException as error:
            if not _is_the_librarys(error):
                raise
            if len(texts) > 1:
                return [self.encode([text], max_tokens, truncation)[0] for text in texts]
            logger.warning("a text could not be tokenised: %s", type(error).__name__)
            return [MessageError(Reason.MODEL_FAILED, "the text could not be tokenised")]
        return [
            self._token_ids(encoding.ids, max_tokens, truncation, is_pair=not isinstance(text, str))
            for text, encoding in zip(texts, encodings, strict=True)
        ]

    def _token_ids(
        self, ids: list[int], max_tokens: int, truncation: Truncation, *, is_pair: bool
    ) -> bytes | MessageError:
        num_special = self._num_special[is_pair]
        if max_tokens <= num_special:  # then the library does not cut
            return MessageError(Reason.TASK_UNAVAILABLE, "the task leaves no room for a text")
        if len(ids) <= num_special:
            return MessageError(Reason.EMPTY_TEXT, "the text holds nothing that a model can read")
        if len(ids) > max_tokens and truncation == "refuse":
            return MessageError(
                Reason.TEXT_TOO_LONG,
                f"the text has {len(ids)} tokens, the task takes {max_tokens}: shorten it",
            )
        if len(ids) > max_tokens:
            ids = head_and_tail(ids, max_tokens)
        # Seven times faster than through numpy for the dozen ids of a query.
        packed = array("I", ids)
        if sys.byteorder == "big":
            packed.byteswap()
        return packed.tobytes()


def _is_the_librarys(error: BaseException) -> bool:
    """Tell an error of the tokenizer, which raises bare Exception, from an interrupt.

    A panic of its Rust code is no Exception; one text that causes it must not end the process, or
    that text would end every process that reads it again.
    """
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


class Tokenizers:
    """The tokenizers of all backbones, from `<models_dir>/<backbone>/tokenizer.json`."""

    def __init__(self, models_dir: Path) -> None:
        self._models_dir = Path(os.path.abspath(models_dir))
        self._loaded: dict[str, BackboneTokenizer] = {}

    def of(self, backbone: str) -> BackboneTokenizer:
        """Return a backbone's tokenizer; the first call reads it.

        Raises:
            MessageError: TASK_UNAVAILABLE if this scheduler does not have it.
        """
        tokenizer = self._loaded.get(backbone)
        if tokenizer is None:
            tokenizer = self._loaded[backbone] = self._load(backbone)
        return tokenizer

    def preload(self, backbones: Iterable[str]) -> None:
        """Read tokenizers before the first query asks; those that are not there are logged."""
        for backbone in sorted(backbones):
            with contextlib.suppress(MessageError):
                self.of(backbone)

    def _load(self, backbone: str) -> BackboneTokenizer:
        # By name only: a folder that the machine's owner linked in may lie elsewhere.
        path = Path(os.path.normpath(self._models_dir / backbone / "tokenizer.json"))
        try:
            if not path.is_relative_to(self._models_dir):
                raise FileNotFoundError(f"{backbone} leads out of {self._models_dir}")
            return BackboneTokenizer(path)
        except Exception as error:  # the library raises bare Exception
            logger.error(
                "no tokenizer of %s at %s (%s); run `petstream models fetch %s`",
                backbone,
                path,
                error,
                backbone,
            )
            raise MessageError(
                Reason.TASK_UNAVAILABLE, f"the scheduler has no tokenizer of backbone {backbone}"
            ) from error


def without_pruned_words(
    text: str, text_pair: str | None, kept_words: Sequence[int] | None
) -> TextInput:
    """Return the text (and pair) to tokenise: all of it, or the words that pruning kept.

    A word is what `str.split` gives; words of the pair are numbered on from those of the text. A
    part of which nothing was kept stays whole, since an empty one would mean another thing.
    """
    if kept_words is not None:
        kept = frozenset(kept_words)
        num_words = len(text.split())
        text = _only(text, 0, kept)
        text_pair = None if text_pair is None else _only(text_pair, num_words, kept)
    return text if text_pair is None else (text, text_pair)


def _only(text: str, first_number: int, kept: frozenset[int]) -> str:
    words = text.split()
    return " ".join(w for number, w in enumerate(words, first_number) if number in kept) or text
