"""Changed word embeddings: single trained tokens, LoRA on the table, a table saved whole."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.backbone_families import POSITIONS, TOKEN_TYPES, WORDS
from tasks.errors import BadCheckpoint
from tasks.importers.backbone_tensors import BackboneTensors
from tasks.importers.part import Part, build
from tasks.importers.peft.config import FILE, PeftConfig
from tasks.importers.peft.keys import PeftKeys, as_float32
from tasks.importers.peft.target import Target
from tasks.pets.embedding_delta import EmbeddingDelta

_TOKENS, _LORA_A, _LORA_B = "trainable_tokens_delta", "lora_embedding_A", "lora_embedding_B"


def take_embeddings(
    keys: PeftKeys, config: PeftConfig, target: Target, backbone: BackboneTensors
) -> list[Part]:
    """Take what changes the embedding tables.

    Raises:
        ImportRefused: If it does not fit the backbone's tables.
    """
    hidden = target.shape.hidden_size
    words = np.zeros((target.shape.vocab_size, hidden), np.float32)
    tensors: dict[str, NDArray[Any]] = {"embeddings.words": words}
    is_changed = False
    if keys.has(WORDS, "weight"):
        words += keys.take(WORDS, "weight", *words.shape) - backbone[f"{WORDS}.weight"]
        is_changed = True
    if keys.has(WORDS, _LORA_A):
        a = keys.take(WORDS, _LORA_A, None, len(words))
        b = keys.take(WORDS, _LORA_B, hidden, len(a))
        scale = config.number("lora_alpha", 8) / len(a) ** (0.5 if config.has("use_rslora") else 1)
        words += as_float32(scale * (b @ a).T)
        is_changed = True
    if keys.has(WORDS, _TOKENS):
        rows = _token_rows(config, len(words))
        values = keys.take(WORDS, _TOKENS, len(rows), hidden)
        words[rows] = values - backbone[f"{WORDS}.weight"][rows]
        is_changed = True
    sizes = {}
    for module, field, name in (
        (POSITIONS, "num_positions", "embeddings.positions"),
        (TOKEN_TYPES, "num_types", "embeddings.types"),
    ):
        if keys.has(module, "weight"):
            own = backbone[f"{module}.weight"]
            change = keys.take(module, "weight", *own.shape) - own
            tensors[name] = change[backbone.first_position :] if module == POSITIONS else change
            sizes[field] = len(tensors[name])
    if not is_changed and not sizes:
        return []
    return [Part(build(EmbeddingDelta, **sizes), tensors)]


def _token_rows(config: PeftConfig, vocab_size: int) -> list[int]:
    name = "token_indices" if config.raw("token_indices") else "trainable_token_indices"
    found = config.raw(name)
    if isinstance(found, dict) and len(found) == 1:
        (found,) = found.values()
    is_whole = isinstance(found, list) and all(type(row) is int for row in found)
    if not is_whole or any(not 0 <= row < vocab_size for row in found):
        raise BadCheckpoint(f"{FILE}: {name} does not name tokens of the backbone's vocabulary")
    if len(set(found)) < len(found):
        raise BadCheckpoint(f"{FILE}: {name} names a token twice")
    return list(found)
