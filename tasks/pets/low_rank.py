"""What LoRA and its relatives share: where the factors stand, their ranks and scales."""

import math
from abc import abstractmethod
from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from tasks.backbone_shape import LINEAR_SITES, BackboneShape, LinearSite, Site
from tasks.errors import RankOutOfRange
from tasks.pets.pet import Pet, Tensors, TensorSpec, to_float32
from tasks.pets.site_names import EachOnce, LinearName, at, expand_linear, place
from tasks.site_ops import LowRank, SiteOps

Rank = Annotated[int, Field(ge=1, le=1024)]
Alpha = Annotated[float, Field(gt=0, le=65536)]


class LowRankPet(Pet):
    """A low-rank matrix beside each of the weights at `sites`."""

    rank: Rank
    alpha: Alpha
    sites: Annotated[tuple[LinearName, ...], Field(min_length=1), EachOnce] = LINEAR_SITES
    rank_pattern: dict[LinearName, Rank] | None = None
    """Ranks that differ from `rank`, by site name."""

    def places(self, shape: BackboneShape) -> Iterator[tuple[int, LinearSite]]:
        """Yield where the factors stand.

        Raises:
            SiteNotFound: If the backbone does not have a layer that `sites` names.
        """
        yield from expand_linear(self.sites, shape)

    def rank_at(self, layer: int, site: Site) -> int:
        """Return the rank of one place."""
        return at(self.rank_pattern, layer, site, self.rank)

    @abstractmethod
    def scale_at(self, layer: int, site: Site) -> float:
        """Return what the product of the factors is multiplied by."""

    def tensor_specs(self, shape: BackboneShape) -> dict[str, TensorSpec]:
        """`lora_a` [rank, in] and `lora_b` [out, rank] at each place."""
        specs = {}
        for layer, site in self.places(shape):
            num_out, num_in = shape.linear_shape(site)
            rank = self.rank_at(layer, site)
            if rank > min(num_out, num_in):
                raise RankOutOfRange(
                    f"rank {rank} at {site} is more than the backbone's matrix has "
                    f"({min(num_out, num_in)}): train with a smaller rank"
                )
            specs[f"{place(layer, site)}.lora_a"] = TensorSpec((rank, num_in))
            specs[f"{place(layer, site)}.lora_b"] = TensorSpec((num_out, rank))
        return specs

    def low_rank(self, tensors: Tensors, layer: int, site: Site) -> LowRank:
        """Return the op of one place."""
        prefix = place(layer, site)
        return LowRank(
            a=to_float32(tensors[f"{prefix}.lora_a"]),
            b=to_float32(tensors[f"{prefix}.lora_b"]),
            scale=self.scale_at(layer, site),
        )

    def decode(self, shape: BackboneShape, tensors: Tensors) -> dict[tuple[int, Site], SiteOps]:
        """One `low_rank` op per place."""
        return {
            (layer, site): SiteOps(low_rank=self.low_rank(tensors, layer, site))
            for layer, site in self.places(shape)
        }


class ScaledLowRankPet(LowRankPet):
    """Low-rank factors with LoRA's scale: alpha over the rank, or over its square root."""

    alpha_pattern: dict[LinearName, Alpha] | None = None
    """Alphas that differ from `alpha`, by site name."""
    rank_stabilized: bool | None = None
    """Divide alpha by the square root of the rank (Kalajdzievski, 2023)."""
    has_bias: bool | None = None
    """`lora_bias` [out] at each place: added to the up product, and scaled with it."""

    def scale_at(self, layer: int, site: Site) -> float:
        """Return alpha / rank, or alpha / sqrt(rank)."""
        rank = self.rank_at(layer, site)
        alpha = at(self.alpha_pattern, layer, site, self.alpha)
        return alpha / (math.sqrt(rank) if self.rank_stabilized else rank)

    def tensor_specs(self, shape: BackboneShape) -> dict[str, TensorSpec]:
        """The factors, and `lora_bias` [out] where there is one."""
        specs = super().tensor_specs(shape)
        if self.has_bias:
            for layer, site in self.places(shape):
                num_out, _ = shape.linear_shape(site)
                specs[f"{place(layer, site)}.lora_bias"] = TensorSpec((num_out,))
        return specs

    def decode(self, shape: BackboneShape, tensors: Tensors) -> dict[tuple[int, Site], SiteOps]:
        """A `low_rank` op per place, and a `bias` op where the up product has a bias."""
        ops = super().decode(shape, tensors)
        if self.has_bias:
            for (layer, site), found in ops.items():
                bias = to_float32(tensors[f"{place(layer, site)}.lora_bias"])
                ops[layer, site] = SiteOps(
                    low_rank=found.low_rank, bias=to_float32(self.scale_at(layer, site) * bias)
                )
        return ops
