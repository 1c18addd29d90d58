"""Random backbones so small that they are committed, and the rows that are run through them.

Runs in the environment of `make oracle-env`. Weights are spread so widely that attention is
peaked and logits are of order 1: an error in any place shows in the logits.
"""

from dataclasses import dataclass
from pathlib import Path
from string import ascii_lowercase, digits
from typing import Any, Literal

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    RobertaConfig,
    RobertaModel,
)

Family = Literal["bert", "roberta", "distilbert"]

FAMILIES: tuple[Family, ...] = ("bert", "roberta", "distilbert")
VOCAB_SIZE = 96
_NUM_SPECIALS = 5
# Single texts, then pairs; a pair's two lengths are without special tokens.
_SINGLES = (1, 6, 19, 38)
_PAIRS = ((3, 5), (17, 10))


@dataclass(frozen=True, slots=True)
class Row:
    """One text or pair in tokens, special tokens included."""

    token_ids: list[int]
    token_types: list[int]
    """All 0 where the model has no token types."""


def write_backbone(family: Family, folder: Path) -> None:
    """Write `config.json`, `model.safetensors` and `tokenizer.json` of a family."""
    torch.manual_seed(20 + FAMILIES.index(family))
    model = _model(family)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape)
            if "LayerNorm.weight" in name or "layer_norm.weight" in name:
                parameter.copy_(1 + 0.2 * noise)
            else:
                parameter.copy_((0.25 if parameter.ndim == 2 else 0.2) * noise)
    model.save_pretrained(folder)
    tokenizer = _byte_pairs() if family == "roberta" else _word_pieces()
    tokenizer.save(str(folder / "tokenizer.json"))


def rows(family: Family) -> list[Row]:
    """Return the rows of a family, the same at every call."""
    generator = torch.Generator().manual_seed(7)

    def text(length: int) -> list[int]:
        drawn = torch.randint(_NUM_SPECIALS, VOCAB_SIZE, (length,), generator=generator)
        return [int(token) for token in drawn]

    first, last, middle = (0, 2, [2, 2]) if family == "roberta" else (2, 3, [3])
    made = []
    for length in _SINGLES:
        token_ids = [first, *text(length), last]
        made.append(Row(token_ids, [0] * len(token_ids)))
    for left, right in _PAIRS:
        token_ids = [first, *text(left), *middle, *text(right), last]
        second = right + 1 if family == "bert" else 0
        made.append(Row(token_ids, [0] * (len(token_ids) - second) + [1] * second))
    return made


def _model(family: Family) -> Any:  # noqa: ANN401
    if family == "distilbert":
        return DistilBertModel(
            DistilBertConfig(
                vocab_size=VOCAB_SIZE,
                dim=32,
                n_layers=2,
                n_heads=4,
                hidden_dim=64,
                max_position_embeddings=64,
            )
        )
    sizes: dict[str, Any] = {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
    }
    if family == "bert":
        return BertModel(BertConfig(**sizes, max_position_embeddings=64, type_vocab_size=2))
    return RobertaModel(
        RobertaConfig(
            **sizes,
            # Positions start at the padding token's id plus one.
            max_position_embeddings=66,
            type_vocab_size=1,
            layer_norm_eps=1e-5,
        )
    )


def _word_pieces() -> Tokenizer:
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    characters = ascii_lowercase + digits
    words = ["the", "a", "is", "not", "good", "bad", "film", "and", "of", "to", "it", "very"]
    pieces = [*specials, *characters, *(f"##{c}" for c in characters), *words, ".", ",", "?", "!"]
    vocab = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.add_special_tokens(specials)
    return tokenizer


def _byte_pairs() -> Tokenizer:
    """Make RoBERTa's kind of tokenizer, with an alphabet of lower case, digits and a few signs."""
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    space = "\u0120"  # how the byte level writes a space
    merges = [(space, letter) for letter in ascii_lowercase] + [("t", "h"), ("th", "e")]
    pieces = [*specials, *ascii_lowercase, *digits, space, *".,?!", *("".join(m) for m in merges)]
    vocab = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    tokenizer.add_special_tokens(specials)
    return tokenizer
