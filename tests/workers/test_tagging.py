"""Tagging as it is trained, from rows of words to spans, on the real tokenizer."""

from pathlib import Path

import numpy as np
import pytest
from tokenizers import ByteLevelBPETokenizer
from tokenizers.processors import RobertaProcessing

from tasks.training.batches import IGNORED, encode_rows, load_tokenizer
from tasks.training.rows import LabelledRow, LabelledRows
from tests.workers.test_cascade import make_task
from workers.backbone_store import BackboneStore
from workers.cascade import judge
from workers.tagging import WordFinder, character_spans

LABELS = ("O", "B-person", "I-person", "B-place")
TEXT = "Hello, Ada Lovelace (the Countess) didn't go to Wroxeter-on-Sea, today."
TAGS = ("O", "B-person", "I-person", "O", "I-person", "O", "O", "O", "B-place", "O")
SPANS = ((7, 19, "person"), (25, 34, "person"), (48, 64, "place"))
PAIR = "Who didn't go? Byron."


@pytest.fixture(scope="module")
def folder(backbones: BackboneStore) -> Path:
    return backbones.fetch("minilm-l6")


def served(
    folder: Path,
    text: str,
    tags: tuple[str, ...],
    *,
    pair: str | None = None,
    max_tokens: int = 128,
    doubt: float = 0.0,
) -> tuple[tuple[tuple[int, int, str], ...], float, int]:
    """Serve a row by a model that has learnt its training target, and elsewhere says a place.

    Args:
        folder: Of the backbone.
        text: The row's text.
        tags: Of its words.
        pair: Its second text.
        max_tokens: Where it is cut.
        doubt: How much less certain the model is of the last word that it was trained on.

    Returns:
        Spans, confidence, and the number of words that were trained on.
    """
    rows = LabelledRows("tagging", (LabelledRow(text, pair, tags),), "test")
    (row,) = encode_rows(rows, LABELS, load_tokenizer(folder, max_tokens))
    targets = [int(target) for target in row.target]
    trained = [token for token, target in enumerate(targets) if target != IGNORED]
    logits = np.zeros((len(targets), len(LABELS)), np.float32)
    for token, target in enumerate(targets):
        # Uncertain wherever nothing was trained: that must not count.
        logits[token, LABELS.index("B-place") if target == IGNORED else target] = 1.0
        logits[token] *= 1.0 if target == IGNORED else 9.0
    logits[trained[-1]] *= 1.0 - doubt
    words = WordFinder(folder).words(text, pair, np.array(row.token_ids))
    word_logits = logits[[word.token for word in words]]
    output = judge(make_task("tagging", fitted=False), 0, word_logits, None)
    return character_spans(words, output.scores, LABELS), output.confidence, len(trained)


def test_words_with_punctuation_are_tagged_as_they_were_trained(folder: Path) -> None:
    """One tag for what stands between spaces: `(the` and `didn't` are a word each."""
    spans, sure, num_words = served(folder, TEXT, TAGS)

    assert spans == SPANS
    assert [TEXT[start:end] for start, end, _ in spans] == [
        "Ada Lovelace",
        "Countess)",
        "Wroxeter-on-Sea,",
    ]
    assert num_words == len(TAGS)
    assert sure > 0.99


def test_the_confidence_is_that_of_the_most_doubtful_word(folder: Path) -> None:
    """Special tokens and the rest of a word, which nobody trained, have no say."""
    _, sure, _ = served(folder, TEXT, TAGS, doubt=0.9)

    assert sure == pytest.approx(np.exp(0.9) / (np.exp(0.9) + 3), abs=1e-4)


@pytest.mark.parametrize("max_tokens", range(3, 26))
def test_words_that_were_cut_off_have_no_tag(folder: Path, max_tokens: int) -> None:
    """Nothing is read off the [SEP] that took the place of the next word."""
    spans, sure, num_words = served(folder, TEXT, TAGS, max_tokens=max_tokens)

    ends = [start for start in range(len(TEXT)) if start == 0 or TEXT[start - 1] == " "]
    seen = TAGS[:num_words]
    assert {TEXT[start:].split()[0] for start, _, _ in spans} == {
        TEXT[ends[number] :].split()[0]
        for number, tag in enumerate(seen)
        if tag in ("B-person", "B-place") or (tag == "I-person" and number == 4)
    }
    assert sure > 0.99


@pytest.mark.parametrize(("max_tokens", "num_spans"), [(128, 3), (20, 2)], ids=["whole", "cut"])
def test_of_a_pair_only_the_first_text_is_tagged(
    folder: Path, max_tokens: int, num_spans: int
) -> None:
    """The second text's tokens say `place`, which no word of the first hears."""
    spans, sure, num_words = served(folder, TEXT, TAGS, pair=PAIR, max_tokens=max_tokens)

    assert spans == SPANS[:num_spans]
    assert (num_words == len(TAGS)) == (num_spans == len(SPANS))
    assert sure > 0.99


def test_a_word_that_the_tokenizer_drops_has_no_tag(folder: Path) -> None:
    """Its neighbours keep theirs; a span does not reach across it."""
    text, tags = "Ada \u200b\u200b Lovelace", ("B-person", "O", "I-person")

    spans, _, num_words = served(folder, text, tags)

    assert num_words == 2
    assert spans == ((0, 3, "person"), (7, 15, "person"))


def test_special_tokens_in_a_text_are_words(folder: Path) -> None:
    """`[SEP]` in a text is four letters and two brackets."""
    spans, _, _ = served(folder, "Ada [SEP] Wroxeter", ("B-person", "O", "B-place"))

    assert spans == ((0, 3, "person"), (10, 18, "place"))


def test_tokens_of_another_text_are_refused(folder: Path) -> None:
    """Rather than tags at the wrong words."""
    with pytest.raises(ValueError, match="not those of its text"):
        WordFinder(folder).words("Ada", None, np.array([101, 7592, 102]))


def test_words_of_a_byte_level_tokenizer(tmp_path: Path) -> None:
    """RoBERTa's tokens begin with the space before a word; the word is found all the same."""
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator([TEXT] * 9, vocab_size=300, special_tokens=["<s>", "</s>"])
    tokenizer.post_processor = RobertaProcessing(("</s>", 1), ("<s>", 0))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    ids = np.array(tokenizer.encode(TEXT, PAIR).ids)

    words = WordFinder(tmp_path).words(TEXT, PAIR, ids)

    assert [TEXT[word.start : word.end] for word in words] == TEXT.split()
    assert words[0].token == 1
    assert words[-1].token < ids.tolist().index(1)
