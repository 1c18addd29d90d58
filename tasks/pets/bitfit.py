"""BitFit: only the biases are trained. Ben Zaken et al., ACL 2022.

PetS stores whole bias vectors that replace the shared ones; here deltas are stored, so that
float16 rounds the small change and not the sum.
"""

from typing import Literal

from tasks.backbone_shape import LINEAR_SITES, NORM_SITES, BackboneShape, Site
from tasks.pets.pet import Pet, Tensors, TensorSpec, to_float32
from tasks.site_ops import SiteOps


class BitFit(Pet):
    """Adds to the bias of every linear site and to beta of every LayerNorm."""

    kind: Literal["bitfit"] = "bitfit"

    def tensor_specs(self, shape: BackboneShape) -> dict[str, TensorSpec]:
        """`bias` [out] at the linear sites and `bias` [hidden] at the norms, as deltas."""
        specs = {}
        for layer in range(shape.num_layers):
            for site in LINEAR_SITES:
                num_out, _ = shape.linear_shape(site)
                specs[f"layers.{layer}.{site}.bias"] = TensorSpec((num_out,))
            for norm in NORM_SITES:
                specs[f"layers.{layer}.{norm}.bias"] = TensorSpec((shape.hidden_size,))
        return specs

    def decode(self, shape: BackboneShape, tensors: Tensors) -> dict[tuple[int, Site], SiteOps]:
        """`bias` ops at linear sites, `norm_bias` ops at norms."""
        ops: dict[tuple[int, Site], SiteOps] = {}
        for layer in range(shape.num_layers):
            for site in LINEAR_SITES:
                bias = to_float32(tensors[f"layers.{layer}.{site}.bias"])
                ops[layer, site] = SiteOps(bias=bias)
            for norm in NORM_SITES:
                bias = to_float32(tensors[f"layers.{layer}.{norm}.bias"])
                ops[layer, norm] = SiteOps(norm_bias=bias)
        return ops
