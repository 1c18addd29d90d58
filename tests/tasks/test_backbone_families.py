"""The names of each family are those of transformers' own models."""

from typing import Any

import pytest
from torch import nn
from transformers import AutoModel, AutoModelForSequenceClassification

from tasks.backbone_families import (
    EMBEDDING_NORM,
    EMBEDDING_PROJECTION,
    FAMILIES,
    WORDS,
    BackboneFamily,
    family_of,
)
from tasks.backbone_shape import LINEAR_SITES, NORM_SITES, LinearSite, shape_from_config
from tests.workers.tiny_models import CONFIGS


@pytest.mark.parametrize("variant", CONFIGS)
def test_sites_are_modules_of_the_model(variant: str) -> None:
    """Every site of every layer, a linear module of the shape that tasks expect or a LayerNorm."""
    config = CONFIGS[variant]
    family = family_of(config.to_dict())
    shape = shape_from_config(config.to_dict())
    auto: Any = AutoModel
    model = auto.from_config(config)

    for layer in range(shape.num_layers):
        for site in LINEAR_SITES:
            linear = model.get_submodule(family.module_path(layer, site))
            assert isinstance(linear, nn.Linear)
            assert tuple(linear.weight.shape) == shape.linear_shape(site)
        for norm_site in NORM_SITES:
            norm = model.get_submodule(family.module_path(layer, norm_site))
            assert isinstance(norm, nn.LayerNorm)


@pytest.mark.parametrize("variant", CONFIGS)
def test_embeddings_are_as_wide_as_the_models(variant: str) -> None:
    """Their tables and LayerNorm; a projection is there just where the layers are not."""
    config = CONFIGS[variant]
    shape = shape_from_config(config.to_dict())
    auto: Any = AutoModel
    model = auto.from_config(config)

    words, norm = model.get_submodule(WORDS), model.get_submodule(EMBEDDING_NORM)
    assert tuple(words.weight.shape) == (shape.vocab_size, shape.embedding_size)
    assert tuple(norm.weight.shape) == (shape.norm_size("embeddings"),)
    is_projected = shape.embedding_size != shape.hidden_size
    assert is_projected == hasattr(model, EMBEDDING_PROJECTION) == (variant == "electra")


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())
def test_every_linear_and_norm_of_a_layer_is_a_site(family: BackboneFamily) -> None:
    """Found by its path in a model with a head; embeddings, pooler and head are no sites."""
    auto: Any = AutoModelForSequenceClassification
    model = auto.from_config(CONFIGS[family.model_type])
    kinds = nn.Linear | nn.LayerNorm
    paths = [path for path, module in model.named_modules() if isinstance(module, kinds)]
    places = {path: family.place(path) for path in paths}

    found = [place for place in places.values() if place is not None]
    assert sorted(found) == sorted(
        (layer, site) for layer in range(2) for site in (*LINEAR_SITES, *NORM_SITES)
    )
    assert all(
        path == f"{family.prefix}.{family.module_path(*place)}"
        for path, place in places.items()
        if place is not None
    )
    layers = f"{family.prefix}.{family.layers}."
    assert all((place is not None) == path.startswith(layers) for path, place in places.items())


@pytest.mark.parametrize(
    ("family", "path", "place"),
    [
        ("bert", "encoder.layer.11.attention.self.query", (11, "query")),
        ("bert", "bert.encoder.layer.0.output.dense", (0, "ffn_output")),
        ("bert", "bert.encoder.layer.0.attention.output.dense", (0, "attention_output")),
        ("distilbert", "distilbert.transformer.layer.3.attention.q_lin", (3, "query")),
        ("distilbert", "transformer.layer.3.sa_layer_norm", (3, "attention_norm")),
        ("mpnet", "mpnet.encoder.layer.0.attention.attn.q", (0, "query")),
        ("mpnet", "mpnet.encoder.layer.0.attention.LayerNorm", (0, "attention_norm")),
        ("bert", "bert.pooler.dense", None),
        ("bert", "roberta.encoder.layer.0.output.dense", None),
        ("bert", "encoder.layer.01.output.dense", None),
        ("bert", "encoder.layer.-1.output.dense", None),
        ("bert", "encoder.layer.0.output", None),
        ("bert", "encoder.layer.0.output.dense.lora_A", None),
    ],
)
def test_a_place_is_read_from_a_path(
    family: str, path: str, place: tuple[int, LinearSite] | None
) -> None:
    """With the prefix of a model with a head or without; what is no site is None."""
    assert FAMILIES[family].place(path) == place


@pytest.mark.parametrize("config", [{}, {"model_type": "gpt2"}, {"model_type": ["bert"]}])
def test_an_unknown_family_is_refused(config: dict[str, Any]) -> None:
    """With those that are known."""
    with pytest.raises(ValueError, match="known are bert, distilbert, roberta, electra, mpnet"):
        family_of(config)


@pytest.mark.parametrize(
    ("model_type", "padding", "positions"),
    [
        ("bert", {}, 514),
        ("electra", {"pad_token_id": 3}, 514),
        ("roberta", {}, 512),
        ("roberta", {"pad_token_id": 0}, 513),
        ("mpnet", {"pad_token_id": 1}, 512),
    ],
)
def test_positions_behind_the_padding_are_those_that_rows_have(
    model_type: str, padding: dict[str, int], positions: int
) -> None:
    """RoBERTa's table of 514 rows is for rows of 512 tokens."""
    config = {
        "model_type": model_type,
        "num_hidden_layers": 1,
        "hidden_size": 8,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "vocab_size": 50,
        "max_position_embeddings": 514,
        "embedding_size": 8,
    }

    assert shape_from_config(config | padding).max_positions == positions


@pytest.mark.parametrize("padding", [None, -1, True, "1", 1 << 40])
def test_a_padding_token_that_cannot_be_is_refused(padding: object) -> None:
    """Where the positions hang on it."""
    with pytest.raises(ValueError, match="expected pad_token_id in 0"):
        FAMILIES["roberta"].first_position({"pad_token_id": padding})
    assert FAMILIES["bert"].first_position({"pad_token_id": padding}) == 0
