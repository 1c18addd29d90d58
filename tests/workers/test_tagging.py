"""Spans from per-token scores, on the real tokenizer."""

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from workers.backbone_store import BackboneStore
from workers.tagging import WordTagger

LABELS = ("O", "B-person", "I-person", "B-place")
TEXT = "Ada Lovelace went to Wroxeter today"


@pytest.fixture(scope="module")
def tokenizer_folder(backbones: BackboneStore) -> Path:
    return backbones.folder("minilm-l6")


def scores_for(
    folder: Path, tags: dict[str, str]
) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Score the first token of each tagged word; other tokens of it say something else."""
    encoding = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(TEXT)
    scores = np.zeros((len(encoding.ids), len(LABELS)), np.float32)
    seen: set[int] = set()
    for token, word in enumerate(encoding.word_ids):
        if word is None:
            continue
        span = encoding.word_to_chars(word)
        assert span is not None
        start, end = span
        label = tags.get(TEXT[start:end], "O") if word not in seen else "B-place"
        scores[token, LABELS.index(label)] = 1
        seen.add(word)
    return scores


def test_spans_join_what_follows_a_beginning(tokenizer_folder: Path) -> None:
    """B and I of one label are one span, given by characters of the text."""
    scores = scores_for(
        tokenizer_folder, {"Ada": "B-person", "Lovelace": "I-person", "Wroxeter": "B-place"}
    )

    spans = WordTagger(tokenizer_folder).spans(TEXT, scores, LABELS)

    assert spans == ((0, 12, "person"), (21, 29, "place"))


def test_an_inside_without_a_beginning_opens_a_span(tokenizer_folder: Path) -> None:
    """A tagger may forget the B: the word is tagged all the same."""
    scores = scores_for(tokenizer_folder, {"Wroxeter": "I-person"})

    spans = WordTagger(tokenizer_folder).spans(TEXT, scores, LABELS)

    assert spans == ((21, 29, "person"),)


def test_truncated_rows_tag_what_was_seen(tokenizer_folder: Path) -> None:
    """Fewer scores than tokens: the words beyond are not tagged, and nothing fails."""
    scores = scores_for(tokenizer_folder, {"Ada": "B-person", "Wroxeter": "B-place"})[:3]

    spans = WordTagger(tokenizer_folder).spans(TEXT, scores, LABELS)

    assert spans == ((0, 3, "person"),)
