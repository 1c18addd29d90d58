"""The shared weights of one level: a BERT encoder in memory, read-only, one copy per process."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from safetensors.torch import load_file

from gpu_ops.layer_norm import NormWeights
from tasks.backbone_shape import (
    NORM_SITES,
    SITE_MODULES,
    BackboneShape,
    LinearSite,
    NormSite,
    backbone_digest,
)
from workers.backbone_folder import (
    WEIGHTS_FILE,
    check_weights_header,
    expected_tensors,
    read_config,
    tensor_prefix,
)
from workers.errors import BackboneCorruptError

Product = Literal["qkv", "attention_output", "ffn_input", "ffn_output"]
"""The matrix products of a layer: query, key and value are one, side by side."""

PRODUCTS: tuple[Product, ...] = get_args(Product)
SITES_OF: dict[Product, tuple[LinearSite, ...]] = {
    "qkv": ("query", "key", "value"),
    "attention_output": ("attention_output",),
    "ffn_input": ("ffn_input",),
    "ffn_output": ("ffn_output",),
}


@dataclass(frozen=True, slots=True, eq=False)
class LinearWeights:
    """One product's shared weight and bias."""

    weight: torch.Tensor
    """Shape (out, in), float32, contiguous."""
    bias: torch.Tensor
    """Shape (out,), float32."""


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddingWeights:
    """The embedding tables and their LayerNorm."""

    words: torch.Tensor
    """Shape (vocab_size, hidden)."""
    places: torch.Tensor
    """Shape (num_token_types * max_positions, hidden): the sum of the token type's and the
    position's embedding, at row `token_type * max_positions + position`."""
    norm: NormWeights


@dataclass(frozen=True, slots=True, eq=False)
class Backbone:
    """A BERT encoder, float32."""

    name: str
    """Its folder's name."""
    digest: str
    """`sha256:<hex>` of `model.safetensors`."""
    shape: BackboneShape
    num_token_types: int
    layer_norm_eps: float
    embeddings: EmbeddingWeights
    products: dict[tuple[int, Product], LinearWeights]
    norms: dict[tuple[int, NormSite], NormWeights]
    pooler: LinearWeights | None
    """Reads the first token; only heads of tasks use it. None: the checkpoint has none."""

    @classmethod
    def load(cls, folder: Path) -> "Backbone":
        """Read a backbone's folder; 16-bit weights become float32.

        Raises:
            BackboneError: If it is not whole, or not a model that the engine runs.
        """
        config = read_config(folder)
        check_weights_header(folder, config)
        digest = backbone_digest(folder)
        stored = load_file(folder / WEIGHTS_FILE)
        prefix = tensor_prefix(stored)
        weights = {
            name: stored[prefix + name].to(torch.float32).contiguous()
            for name in expected_tensors(config)
        }
        broken = [name for name, tensor in weights.items() if not tensor.isfinite().all()]
        if broken:
            raise BackboneCorruptError(f"{folder / WEIGHTS_FILE}: {broken[0]} is not finite")
        layers = range(config.shape.num_layers)
        return cls(
            name=folder.name,
            digest=digest,
            shape=config.shape,
            num_token_types=config.num_token_types,
            layer_norm_eps=config.layer_norm_eps,
            embeddings=_embeddings(weights),
            products={(i, p): _product(weights, i, p) for i in layers for p in PRODUCTS},
            norms={
                (i, site): _norm(weights, f"encoder.layer.{i}.{SITE_MODULES[site]}")
                for i in layers
                for site in NORM_SITES
            },
            pooler=_pooler(stored, prefix, config.shape.hidden_size),
        )


def shared_tensors(backbone: Backbone) -> Iterator[torch.Tensor]:
    """Yield those of the backbone's tensors that a task's ops may be, unchanged."""
    for norm in (*backbone.norms.values(), backbone.embeddings.norm):
        yield from norm
    if backbone.pooler is not None:
        yield backbone.pooler.weight
        yield backbone.pooler.bias


def _pooler(stored: dict[str, torch.Tensor], prefix: str, hidden: int) -> LinearWeights | None:
    weight, bias = (stored.get(f"{prefix}pooler.dense.{name}") for name in ("weight", "bias"))
    if weight is None or bias is None:
        return None
    if weight.shape != (hidden, hidden) or bias.shape != (hidden,):
        raise BackboneCorruptError(f"the pooler should be [{hidden}, {hidden}]")
    return LinearWeights(weight.float().contiguous(), bias.float().contiguous())


def _embeddings(weights: dict[str, torch.Tensor]) -> EmbeddingWeights:
    types = weights["embeddings.token_type_embeddings.weight"]
    positions = weights["embeddings.position_embeddings.weight"]
    places = types[:, None, :] + positions[None, :, :]
    return EmbeddingWeights(
        words=weights["embeddings.word_embeddings.weight"],
        places=places.reshape(-1, types.shape[1]),
        norm=_norm(weights, "embeddings.LayerNorm"),
    )


def _product(weights: dict[str, torch.Tensor], layer: int, product: Product) -> LinearWeights:
    names = [f"encoder.layer.{layer}.{SITE_MODULES[site]}" for site in SITES_OF[product]]
    return LinearWeights(
        weight=torch.cat([weights[f"{name}.weight"] for name in names]),
        bias=torch.cat([weights[f"{name}.bias"] for name in names]),
    )


def _norm(weights: dict[str, torch.Tensor], name: str) -> NormWeights:
    return NormWeights(weights[f"{name}.weight"], weights[f"{name}.bias"])
