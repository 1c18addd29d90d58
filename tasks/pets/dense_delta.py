"""A whole change of each weight matrix: a full fine-tune that nothing smaller can stand for."""

from typing import Literal

from tasks.backbone_shape import LINEAR_SITES, BackboneShape, Site
from tasks.pets.pet import Pet, Tensors, TensorSpec, to_float32
from tasks.site_ops import SiteOps


class DenseDelta(Pet):
    """Y = X (W + delta)^T + b at every linear site."""

    kind: Literal["dense_delta"] = "dense_delta"

    def tensor_specs(self, shape: BackboneShape) -> dict[str, TensorSpec]:
        """`delta` [out, in] at each linear site."""
        return {
            f"layers.{layer}.{site}.delta": TensorSpec(shape.linear_shape(site))
            for layer in range(shape.num_layers)
            for site in LINEAR_SITES
        }

    def decode(self, shape: BackboneShape, tensors: Tensors) -> dict[tuple[int, Site], SiteOps]:
        """A `dense` op per place."""
        return {
            (layer, site): SiteOps(dense=to_float32(tensors[f"layers.{layer}.{site}.delta"]))
            for layer in range(shape.num_layers)
            for site in LINEAR_SITES
        }
