"""LayerNorm tuning: only gammas and betas are trained. Zhao et al., ICLR 2024."""

from typing import Annotated, Literal

from pydantic import Field

from tasks.backbone_shape import NORM_SITES, BackboneShape, Site
from tasks.pets.pet import Pet, Tensors, TensorSpec, to_float32
from tasks.pets.site_names import EachOnce, NormName, expand, place
from tasks.site_ops import SiteOps


class LayerNormTuning(Pet):
    """Adds to gamma and beta of LayerNorms; by default to both of every layer."""

    kind: Literal["layer_norm"] = "layer_norm"
    sites: Annotated[tuple[NormName, ...], Field(min_length=1), EachOnce] = NORM_SITES

    def tensor_specs(self, shape: BackboneShape) -> dict[str, TensorSpec]:
        """`weight` and `bias` [hidden], [embedding] at the embeddings' norm, as deltas."""
        return {
            f"{place(layer, site)}.{tensor}": TensorSpec((shape.norm_size(site),))
            for layer, site in expand(self.sites, shape)
            for tensor in ("weight", "bias")
        }

    def decode(self, shape: BackboneShape, tensors: Tensors) -> dict[tuple[int, Site], SiteOps]:
        """Norm deltas."""
        return {
            (layer, site): SiteOps(
                norm_weight=to_float32(tensors[f"{place(layer, site)}.weight"]),
                norm_bias=to_float32(tensors[f"{place(layer, site)}.bias"]),
            )
            for layer, site in expand(self.sites, shape)
        }
