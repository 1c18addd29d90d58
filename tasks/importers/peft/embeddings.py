"""Changed embeddings: single trained tokens, LoRA on the words, tables and projection whole."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.backbone_families import EMBEDDING_PROJECTION, POSITIONS, TOKEN_TYPES, WORDS
from tasks.errors import BadCheckpoint
from tasks.importers.backbone_tensors import BackboneTensors
from tasks.importers.merge import merge
from tasks.importers.part import Part, build
from tasks.importers.peft.config import FILE, PeftConfig
from tasks.importers.peft.keys import PeftKeys, as_float32
from tasks.importers.peft.target import Target
from tasks.pets.embedding_delta import EmbeddingDelta
from tasks.site_ops import SiteOps

_TOKENS, _LORA_A, _LORA_B = "trainable_tokens_delta", "lora_embedding_A", "lora_embedding_B"


def take_embeddings(
    keys: PeftKeys,
    config: PeftConfig,
    target: Target,
    backbone: BackboneTensors,
    at_projection: SiteOps | None = None,
) -> list[Part]:
    """Take what changes the embedding tables and the projection behind them.

    Args:
        keys: The checkpoint's tensors.
        config: Its configuration.
        target: The backbone's names and shape.
        backbone: Its tensors.
        at_projection: What was taken already that acts at the projection.

    Raises:
        ImportRefused: If it does not fit the backbone's tables.
    """
    width = target.shape.embedding_size
    words = np.zeros((target.shape.vocab_size, width), np.float32)
    tensors: dict[str, NDArray[Any]] = {"embeddings.words": words}
    is_changed = False
    if keys.has(WORDS, "weight"):
        words += keys.take(WORDS, "weight", *words.shape) - backbone[f"{WORDS}.weight"]
        is_changed = True
    if keys.has(WORDS, _LORA_A):
        a = keys.take(WORDS, _LORA_A, None, len(words))
        b = keys.take(WORDS, _LORA_B, width, len(a))
        scale = config.number("lora_alpha", 8) / len(a) ** (0.5 if config.has("use_rslora") else 1)
        words += as_float32(scale * (b @ a).T)
        is_changed = True
    if keys.has(WORDS, _TOKENS):
        rows = _token_rows(config, len(words))
        values = keys.take(WORDS, _TOKENS, len(rows), width)
        words[rows] = values - backbone[f"{WORDS}.weight"][rows]
        is_changed = True
    fields: dict[str, int] = {}
    for module, size, name in (
        (POSITIONS, "num_positions", "embeddings.positions"),
        (TOKEN_TYPES, "num_types", "embeddings.types"),
    ):
        if keys.has(module, "weight"):
            own = backbone[f"{module}.weight"]
            change = keys.take(module, "weight", *own.shape) - own
            tensors[name] = change[backbone.first_position :] if module == POSITIONS else change
            fields[size] = len(tensors[name])
    if target.is_projection(EMBEDDING_PROJECTION):
        projection = _projection(keys, backbone, at_projection)
        tensors |= projection
        fields |= {"has_projection": True} if projection else {}
    if not is_changed and not fields:
        return []
    return [Part(build(EmbeddingDelta, **fields), tensors)]


def _projection(
    keys: PeftKeys, backbone: BackboneTensors, ops: SiteOps | None
) -> dict[str, NDArray[np.float32]]:
    """Return the change of weight and bias, nothing where the checkpoint says nothing of them."""
    names = ("weight", "bias")
    own = {name: backbone[f"{EMBEDDING_PROJECTION}.{name}"] for name in names}
    saved = {
        name: keys.take(EMBEDDING_PROJECTION, name, *own[name].shape)
        for name in names
        if keys.has(EMBEDDING_PROJECTION, name)
    }
    if not saved and ops is None:
        return {}
    linear = tuple(as_float32(saved.get(name, own[name])) for name in names)
    whole = merge((linear[0], linear[1]), SiteOps() if ops is None else ops)
    return {
        f"embeddings.projection.{name}": as_float32(values - own[name])
        for name, values in zip(names, whole, strict=True)
    }


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
