"""The shared weights of one level: an encoder in memory, read-only, one copy per process."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from safetensors.torch import load_file

from gpu_ops.layer_norm import NormWeights
from tasks.backbone_families import (
    EMBEDDING_NORM,
    EMBEDDING_PROJECTION,
    FAMILIES,
    POSITIONS,
    RELATIVE_ATTENTION,
    TOKEN_TYPES,
    WORDS,
)
from tasks.backbone_shape import NORM_SITES, BackboneShape, LinearSite, NormSite, backbone_digest
from tasks.site_ops import Activation
from workers.backbone_config import BackboneConfig, read_config
from workers.backbone_folder import (
    WEIGHTS_FILE,
    check_weights_header,
    checkpoint_name,
    expected_tensors,
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
NORM_BEHIND: dict[Product, NormSite] = {
    "attention_output": "attention_norm",
    "ffn_output": "ffn_norm",
}
"""The LayerNorm that follows a product, with the residual, at the end of a sub-layer."""


@dataclass(frozen=True, slots=True, eq=False)
class LinearWeights:
    """One product's shared weight and bias."""

    weight: torch.Tensor
    """Shape (out, in), float32, contiguous."""
    bias: torch.Tensor
    """Shape (out,), float32."""


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddingWeights:
    """The embedding tables, their LayerNorm, and what makes the layers' width of theirs."""

    words: torch.Tensor
    """Shape (vocab_size, embedding_size)."""
    places: torch.Tensor
    """Shape (num_token_types * max_positions, embedding_size): the sum of the token type's and the
    position's embedding, at row `token_type * max_positions + position`."""
    norm: NormWeights
    projection: LinearWeights | None = None
    """From embedding_size to hidden, where they differ (ELECTRA)."""


@dataclass(frozen=True, slots=True, eq=False)
class Backbone:
    """An encoder of one of `FAMILIES`, float32."""

    name: str
    """Its folder's name."""
    digest: str
    """`sha256:<hex>` of `model.safetensors`."""
    shape: BackboneShape
    num_token_types: int
    """How many the rows of tokens use: 1 where the texts of a pair are not told apart."""
    activation: Activation
    layer_norm_eps: float
    embeddings: EmbeddingWeights
    products: dict[tuple[int, Product], LinearWeights]
    norms: dict[tuple[int, NormSite], NormWeights]
    pooler: LinearWeights | None = None
    """Reads the first token; only heads of tasks use it. None: the checkpoint has none."""
    relative_attention: torch.Tensor | None = None
    """Shape (num_buckets, num_heads): the bias of attention scores by distance (MPNet)."""

    @classmethod
    def load(cls, folder: Path) -> "Backbone":
        """Read a backbone's folder; 16-bit weights become float32.

        Raises:
            BackboneError: If it is not whole, or not a model that the engine runs.
        """
        config = read_config(folder)
        check_weights_header(folder, config)
        digest = backbone_digest(folder)
        path = folder / WEIGHTS_FILE
        stored = load_file(path)
        weights = _float32(stored, config, path)
        family = FAMILIES[config.family]
        layers = range(config.shape.num_layers)
        return cls(
            name=folder.name,
            digest=digest,
            shape=config.shape,
            num_token_types=config.num_token_types if config.pairs_have_types else 1,
            activation=config.activation,
            layer_norm_eps=config.layer_norm_eps,
            embeddings=_embeddings(weights, config),
            products={
                (i, product): _side_by_side(
                    weights, [family.module_path(i, site) for site in SITES_OF[product]]
                )
                for i in layers
                for product in PRODUCTS
            },
            norms={
                (i, site): _norm(weights, family.module_path(i, site))
                for i in layers
                for site in NORM_SITES
            },
            pooler=_pooler(stored, config, path),
            relative_attention=weights.get(f"{RELATIVE_ATTENTION}.weight"),
        )


def shared_tensors(backbone: Backbone) -> Iterator[torch.Tensor]:
    """Yield those of the backbone's tensors that a task's ops may be, unchanged."""
    if backbone.pooler is not None:
        yield backbone.pooler.weight
        yield backbone.pooler.bias


def _pooler(
    stored: Mapping[str, torch.Tensor], config: BackboneConfig, path: Path
) -> LinearWeights | None:
    """Return the pooler, of which checkpoints without a head for pairs of texts have none."""
    names = [
        checkpoint_name(f"pooler.dense.{name}", config.family, stored)
        for name in ("weight", "bias")
    ]
    if not all(name in stored for name in names):
        return None
    weight, bias = (stored[name].to(torch.float32).contiguous() for name in names)
    hidden = config.shape.hidden_size
    if weight.shape != (hidden, hidden) or bias.shape != (hidden,):
        raise BackboneCorruptError(f"{path}: {names[0]} should have shape {(hidden, hidden)}")
    return LinearWeights(weight, bias)


def _float32(
    stored: Mapping[str, torch.Tensor], config: BackboneConfig, path: Path
) -> dict[str, torch.Tensor]:
    """Return name within the base model -> tensor, float32."""
    weights: dict[str, torch.Tensor] = {}
    for name in expected_tensors(config):
        stored_name = checkpoint_name(name, config.family, stored)
        weights[name] = stored[stored_name].to(torch.float32).contiguous()
        if not weights[name].isfinite().all():
            raise BackboneCorruptError(f"{path}: {stored_name} is not finite")
    return weights


def _embeddings(weights: dict[str, torch.Tensor], config: BackboneConfig) -> EmbeddingWeights:
    positions = weights[f"{POSITIONS}.weight"][config.first_position :]
    types = torch.zeros(1, config.embedding_size)
    if config.num_token_types:
        types = weights[f"{TOKEN_TYPES}.weight"]
        types = types if config.pairs_have_types else types[:1]
    is_projected = config.embedding_size != config.shape.hidden_size
    return EmbeddingWeights(
        words=weights[f"{WORDS}.weight"],
        places=(types[:, None, :] + positions[None, :, :]).reshape(-1, config.embedding_size),
        norm=_norm(weights, EMBEDDING_NORM),
        projection=_side_by_side(weights, [EMBEDDING_PROJECTION]) if is_projected else None,
    )


def _side_by_side(weights: dict[str, torch.Tensor], modules: Sequence[str]) -> LinearWeights:
    return LinearWeights(
        weight=torch.cat([weights[f"{module}.weight"] for module in modules]),
        bias=torch.cat([weights[f"{module}.bias"] for module in modules]),
    )


def _norm(weights: dict[str, torch.Tensor], module: str) -> NormWeights:
    return NormWeights(weights[f"{module}.weight"], weights[f"{module}.bias"])
