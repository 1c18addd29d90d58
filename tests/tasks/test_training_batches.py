"""Rows as token ids: training must read a text exactly as serving does."""

from pathlib import Path

import numpy as np
import pytest

from petstream.settings import load_settings
from scheduler.tokenisation import BackboneTokenizer
from tasks.training.batches import load_tokenizer
from workers.backbone_store import find

TEXTS: list[str | tuple[str, str]] = [
    "play some jazz",
    "what does [SEP] mean",
    "[MASK] [CLS] [PAD] [UNK]",
    "a[SEP]b",
    ("[SEP]", "[MASK] and [CLS]"),
    ("first " * 40, "second " * 5),
    ("first " * 5, "second [SEP] " * 40),
    "long " * 90,
    "İstanbul naïve \x00 \u200b 漢字 🙂",
]


@pytest.fixture(scope="module")
def backbone() -> Path:
    """The small level's real tokenizer."""
    return find("minilm-l3", load_settings().models_dir)


@pytest.mark.parametrize("max_tokens", [8, 48])
def test_training_and_serving_give_the_same_ids(backbone: Path, max_tokens: int) -> None:
    """Written special tokens, pairs and texts that are cut: equal ids, one separator a part."""
    trained = load_tokenizer(backbone, max_tokens).encode_batch(TEXTS)
    served = BackboneTokenizer(backbone / "tokenizer.json").encode(TEXTS, max_tokens)

    separator = trained[0].ids[-1]
    for text, encoding, packed in zip(TEXTS, trained, served, strict=True):
        assert isinstance(packed, bytes)
        assert encoding.ids == np.frombuffer(packed, "<u4").tolist()
        assert encoding.ids.count(separator) == (1 if isinstance(text, str) else 2)
