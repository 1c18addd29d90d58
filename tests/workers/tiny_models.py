"""Tiny random models of each family, as transformers builds and saves them."""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from transformers import (
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    MPNetConfig,
    PretrainedConfig,
    RobertaConfig,
)

SIZES: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 72,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 100,
    "max_position_embeddings": 48,
}
DISTILBERT_SIZES: dict[str, Any] = {
    "vocab_size": 60,
    "dim": 72,
    "n_layers": 2,
    "n_heads": 3,
    "hidden_dim": 100,
    "max_position_embeddings": 48,
}

CONFIGS: dict[str, PretrainedConfig] = {
    "bert": BertConfig(**SIZES),
    "bert-relu-one-type": BertConfig(**SIZES | {"hidden_act": "relu", "type_vocab_size": 1}),
    "bert-gelu-new-one-head": BertConfig(
        **SIZES | {"hidden_act": "gelu_new", "num_attention_heads": 1}
    ),
    "distilbert": DistilBertConfig(**DISTILBERT_SIZES),
    "distilbert-silu": DistilBertConfig(**DISTILBERT_SIZES, activation="silu"),
    "roberta": RobertaConfig(**SIZES, type_vocab_size=1, layer_norm_eps=1e-5),
    "roberta-two-types-other-padding": RobertaConfig(**SIZES, type_vocab_size=2, pad_token_id=4),
    "electra": ElectraConfig(**SIZES, embedding_size=16),
    "electra-as-wide": ElectraConfig(**SIZES, embedding_size=72, hidden_act="gelu_pytorch_tanh"),
    "mpnet": MPNetConfig(**SIZES, layer_norm_eps=1e-5),
    "mpnet-long": MPNetConfig(**SIZES | {"max_position_embeddings": 302}),
}
"""At least one of each family, and what its checkpoints vary in."""

PAIRS_HAVE_TYPES = ("bert", "bert-gelu-new-one-head", "electra", "electra-as-wide")
FAMILIES = ("bert", "distilbert", "roberta", "electra", "mpnet")
SIZES_IN_PACKS = {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128}
"""Instead of those above: kernels read rows 16 bytes at a time."""


def save_random(
    model_class: Any,  # noqa: ANN401 - one of transformers' Auto classes
    variant: str,
    folder: Path,
    *,
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
) -> Path:
    """Save a model of `CONFIGS` whose every parameter counts; return the folder.

    Args:
        model_class: What saves it.
        variant: Of `CONFIGS`.
        folder: Where to.
        seed: Of its parameters.
        sizes: Instead of the variant's own.
    """
    config = deepcopy(CONFIGS[variant])
    config.update(dict(sizes or {}))
    model = model_class.from_config(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:
                is_gain = name.lower().endswith(("layernorm.weight", "layer_norm.weight"))
                parameter.copy_(0.2 * noise + is_gain)
            elif "embedding" in name or "relative" in name:
                parameter.copy_(noise)
            else:
                parameter.copy_(noise / parameter.shape[1] ** 0.5)
    model.save_pretrained(folder)
    return folder
