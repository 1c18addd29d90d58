"""Backbones of a shape without a checkpoint: what they take and cost does not depend on values."""

from collections.abc import Callable

import torch

from gpu_ops.layer_norm import NormWeights
from tasks.backbone_shape import NORM_SITES, BackboneShape
from workers.backbone import (
    PRODUCTS,
    SITES_OF,
    Backbone,
    EmbeddingWeights,
    LinearWeights,
    Product,
)

DIGEST = "sha256:" + "0" * 64
_NUM_TOKEN_TYPES = 2


def empty_backbone(shape: BackboneShape) -> Backbone:
    """Return one without contents, which takes next to no memory: to lay tasks out for."""
    return _backbone(shape, torch.empty)


def random_backbone(shape: BackboneShape, seed: int) -> Backbone:
    """Return one that can be run."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> torch.Tensor:
        return torch.empty(size).normal_(std=0.02, generator=generator)

    return _backbone(shape, normal)


def _backbone(shape: BackboneShape, tensor: Callable[..., torch.Tensor]) -> Backbone:
    hidden = shape.hidden_size

    def norm() -> NormWeights:
        return NormWeights(torch.ones(hidden), torch.zeros(hidden))

    products: dict[tuple[int, Product], LinearWeights] = {}
    for layer in range(shape.num_layers):
        for product in PRODUCTS:
            sizes = [shape.linear_shape(site) for site in SITES_OF[product]]
            num_out = sum(size[0] for size in sizes)
            weights = LinearWeights(tensor(num_out, sizes[0][1]), tensor(num_out))
            products[layer, product] = weights
    return Backbone(
        name="synthetic",
        digest=DIGEST,
        shape=shape,
        num_token_types=_NUM_TOKEN_TYPES,
        activation="gelu",
        layer_norm_eps=1e-12,
        embeddings=EmbeddingWeights(
            words=tensor(shape.vocab_size, hidden),
            places=tensor(_NUM_TOKEN_TYPES * shape.max_positions, hidden),
            norm=norm(),
        ),
        products=products,
        norms={(layer, site): norm() for layer in range(shape.num_layers) for site in NORM_SITES},
        pooler=LinearWeights(tensor(hidden, hidden), tensor(hidden)),
    )
