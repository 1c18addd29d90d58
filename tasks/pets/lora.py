"""LoRA: a low-rank matrix beside each chosen weight. Hu et al., ICLR 2022."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from tasks.backbone_shape import LINEAR_SITES, BackboneShape, LinearSite, Site
from tasks.errors import RankOutOfRange
from tasks.pets.pet import Pet, Tensors, TensorSpec, to_float32
from tasks.site_ops import LowRank, SiteOps


class Lora(Pet):
    """y += (alpha / rank) * (x A^T) B^T at each of `sites`, in every layer."""

    kind: Literal["lora"] = "lora"
    rank: Annotated[int, Field(ge=1, le=1024)]
    alpha: Annotated[float, Field(gt=0, le=65536)]
    sites: Annotated[tuple[LinearSite, ...], Field(min_length=1)] = LINEAR_SITES

    @field_validator("sites")
    @classmethod
    def _has_no_site_twice(cls, sites: tuple[LinearSite, ...]) -> tuple[LinearSite, ...]:
        if len(set(sites)) < len(sites):
            raise ValueError("a site is named twice")
        return sites

    def tensor_specs(self, shape: BackboneShape) -> dict[str, TensorSpec]:
        """`lora_a` [rank, in] and `lora_b` [out, rank] at each site."""
        max_rank = min(min(shape.linear_shape(site)) for site in self.sites)
        if self.rank > max_rank:
            raise RankOutOfRange(
                f"rank {self.rank} is more than the backbone's matrices have ({max_rank}): "
                f"train with a smaller rank"
            )
        specs = {}
        for layer in range(shape.num_layers):
            for site in self.sites:
                num_out, num_in = shape.linear_shape(site)
                specs[f"layers.{layer}.{site}.lora_a"] = TensorSpec((self.rank, num_in))
                specs[f"layers.{layer}.{site}.lora_b"] = TensorSpec((num_out, self.rank))
        return specs

    def decode(self, shape: BackboneShape, tensors: Tensors) -> dict[tuple[int, Site], SiteOps]:
        """One `low_rank` op per layer and site."""
        return {
            (layer, site): SiteOps(
                low_rank=LowRank(
                    a=to_float32(tensors[f"layers.{layer}.{site}.lora_a"]),
                    b=to_float32(tensors[f"layers.{layer}.{site}.lora_b"]),
                    scale=self.alpha / self.rank,
                )
            )
            for layer in range(shape.num_layers)
            for site in self.sites
        }
