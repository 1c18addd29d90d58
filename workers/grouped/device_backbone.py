"""The shared weights on a device, in the type that is computed in."""

from dataclasses import dataclass

import torch

from gpu_ops.layer_norm import NormWeights
from tasks.backbone_shape import NormSite
from workers.backbone import NORM_BEHIND, Backbone, EmbeddingWeights, LinearWeights, Product
from workers.errors import BackboneUnsupportedError

PACK_ELEMENTS = 8
"""Kernels read 16 bytes at a time, which is so many of a two-byte type."""


@dataclass(frozen=True, slots=True, eq=False)
class DeviceBackbone:
    """A backbone's tensors on a device."""

    device: torch.device
    dtype: torch.dtype
    embeddings: EmbeddingWeights
    """float32."""
    products: dict[tuple[int, Product], LinearWeights]
    """Of `dtype`."""
    norms: dict[tuple[int, NormSite], NormWeights]
    """float32."""
    norm_params: dict[tuple[int, Product], torch.Tensor]
    """Shape (3, hidden), of `dtype`: bias of the product, gamma and beta of the LayerNorm behind
    it, as `gpu_ops.grouped.layer_norm` reads them."""
    relative_attention: torch.Tensor | None
    block_bytes: int | None
    """Shared memory that a block of a kernel may have on the device; None where there is none."""

    @classmethod
    def of(cls, backbone: Backbone, device: torch.device, dtype: torch.dtype) -> "DeviceBackbone":
        """Copy a backbone.

        Raises:
            BackboneUnsupportedError: If kernels cannot read rows of its sizes.
        """
        shape = backbone.shape
        for size in (shape.hidden_size, shape.intermediate_size):
            if size % PACK_ELEMENTS:
                raise BackboneUnsupportedError(
                    f"{backbone.name} has rows of {size} values; grouped operators need multiples "
                    f"of {PACK_ELEMENTS}: run it with --device cpu"
                )
        tables = backbone.embeddings
        projection = tables.projection
        products = {
            place: _linear(weights, device, dtype) for place, weights in backbone.products.items()
        }
        return cls(
            device=device,
            dtype=dtype,
            embeddings=EmbeddingWeights(
                tables.words.to(device),
                tables.places.to(device),
                _norm(tables.norm, device),
                None if projection is None else _linear(projection, device, torch.float32),
            ),
            products=products,
            norms={place: _norm(norm, device) for place, norm in backbone.norms.items()},
            norm_params={
                (layer, product): torch.stack(
                    [backbone.products[layer, product].bias, *backbone.norms[layer, site]]
                ).to(device, dtype)
                for layer in range(shape.num_layers)
                for product, site in NORM_BEHIND.items()
            },
            relative_attention=(
                None
                if backbone.relative_attention is None
                else backbone.relative_attention.to(device)
            ),
            block_bytes=_block_bytes(device),
        )


def _block_bytes(device: torch.device) -> int | None:
    if device.type != "cuda":
        return None
    return int(torch.cuda.get_device_properties(device).shared_memory_per_block_optin)


def _linear(weights: LinearWeights, device: torch.device, dtype: torch.dtype) -> LinearWeights:
    return LinearWeights(weights.weight.to(device, dtype), weights.bias.to(device, dtype))


def _norm(norm: NormWeights, device: torch.device) -> NormWeights:
    return NormWeights(*(part.to(device) for part in norm))
