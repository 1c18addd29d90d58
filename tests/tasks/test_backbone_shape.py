"""Shapes: what a backbone's config says, and what no backbone can be."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.backbone_shape import (
    LINEAR_SITES,
    NORM_SITES,
    BackboneShape,
    backbone_digest,
    read_shape,
)
from tasks.description import digest_of
from tasks.errors import BackboneUnknown

BERT_BASE = {
    "num_hidden_layers": 12,
    "hidden_size": 768,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "vocab_size": 30522,
    "max_position_embeddings": 512,
    "model_type": "bert",
}


def backbone(folder: Path, config: object) -> Path:
    """Make a backbone's folder with this config; bytes are written as they are."""
    folder.mkdir()
    raw = config if isinstance(config, bytes) else json.dumps(config).encode()
    (folder / "config.json").write_bytes(raw)
    return folder


def test_a_config_gives_the_shape(tmp_path: Path) -> None:
    """Other keys do not matter."""
    assert read_shape(backbone(tmp_path / "bert", BERT_BASE)) == BackboneShape(
        num_layers=12,
        hidden_size=768,
        num_heads=12,
        intermediate_size=3072,
        vocab_size=30522,
        max_positions=512,
    )


ELECTRA_SMALL = BERT_BASE | {"model_type": "electra", "hidden_size": 256, "embedding_size": 128}
ELECTRA_SMALL |= {"num_attention_heads": 4, "intermediate_size": 1024}


def test_embeddings_of_electra_have_a_width_of_their_own(tmp_path: Path) -> None:
    """And the LayerNorm behind them has it too."""
    shape = read_shape(backbone(tmp_path / "electra", ELECTRA_SMALL))

    assert (shape.hidden_size, shape.embedding_size) == (256, 128)
    assert shape.norm_size("attention_norm") == shape.norm_size("ffn_norm") == 256
    assert shape.norm_size("embeddings") == 128


def test_embeddings_of_other_families_are_as_wide_as_the_layers(tmp_path: Path) -> None:
    """Whatever stands under a key that transformers does not read there."""
    shape = read_shape(backbone(tmp_path / "bert", BERT_BASE | {"embedding_size": 128}))

    assert shape == BackboneShape(12, 768, 12, 3072, 30522, 512)
    assert shape.embedding_size == 768


@pytest.mark.parametrize("size", [0, None, -1, "128", True, 1 << 40])
def test_an_impossible_width_of_embeddings_is_refused(tmp_path: Path, size: object) -> None:
    """It never stands for that of the layers."""
    folder = backbone(tmp_path / "electra", ELECTRA_SMALL | {"embedding_size": size})

    with pytest.raises(BackboneUnknown, match="embedding_size"):
        read_shape(folder)


def test_linear_shapes_are_those_of_torch() -> None:
    """[out, in]; only the feed-forward sites are not square."""
    shape = BackboneShape(1, 8, 2, 20, 50, 32)

    assert {site: shape.linear_shape(site) for site in LINEAR_SITES} == {
        "query": (8, 8),
        "key": (8, 8),
        "value": (8, 8),
        "attention_output": (8, 8),
        "ffn_input": (20, 8),
        "ffn_output": (8, 20),
    }
    assert NORM_SITES == ("attention_norm", "ffn_norm")


@pytest.mark.parametrize(
    "sizes",
    [
        (0, 8, 2, 20, 50, 32),
        (1, -8, 2, 20, 50, 32),
        (1, 8, 3, 20, 50, 32),
        (1, 8.0, 2, 20, 50, 32),
        (True, 8, 2, 20, 50, 32),
        (1, 1 << 16, 2, 1 << 17, 50, 32),
        (1, 8, 2, 1 << 40, 50, 32),
    ],
)
def test_impossible_sizes_are_refused(sizes: tuple[Any, ...]) -> None:
    """Zero, negative, heads that do not divide, no integers, matrices beyond int32."""
    with pytest.raises(ValueError, match="expected"):
        BackboneShape(*sizes)


@pytest.mark.parametrize(
    "make",
    [
        lambda config: b"{",
        lambda config: b"[]",
        lambda config: b"[" * 100_000,
        lambda config: b"\xff\xfe",
        lambda config: b" " * ((1 << 20) + 1),
        lambda config: {key: config[key] for key in config if key != "hidden_size"},
        lambda config: config | {"hidden_size": "768"},
        lambda config: config | {"model_type": "electra"},
        lambda config: config | {"num_hidden_layers": None},
        lambda config: config | {"num_attention_heads": 7},
    ],
)
def test_a_config_that_does_not_say_is_refused(
    tmp_path: Path, make: Callable[[dict[str, Any]], object]
) -> None:
    """With the path and what to do."""
    folder = backbone(tmp_path / "bert", make(dict(BERT_BASE)))

    with pytest.raises(BackboneUnknown, match="petstream models fetch bert"):
        read_shape(folder)


def test_a_missing_backbone_is_told(tmp_path: Path) -> None:
    """With the command that fetches it."""
    with pytest.raises(BackboneUnknown, match="petstream models fetch minilm-l3"):
        read_shape(tmp_path / "minilm-l3")


def test_a_backbones_digest_is_that_of_its_weights(tmp_path: Path) -> None:
    """The one by which a task pins what it was trained on."""
    (tmp_path / "model.safetensors").write_bytes(b"weights")

    assert backbone_digest(tmp_path) == digest_of(b"weights")
