"""BitFit: only the biases are trained. Ben Zaken et al., ACL 2022.

PetS stores whole bias vectors that replace the shared ones; here deltas are stored, so that
float16 rounds the small change and not the sum.
"""

from typing import Annotated, Literal

from tasks.backbone_shape import LINEAR_SITES, NORM_SITES, BackboneShape, Site
from tasks.pets.pet import Pet, Tensors, TensorSpec, to_float32
from tasks.pets.site_names import BiasName, EachOnce, expand, place
from tasks.site_ops import SiteOps


class BitFit(Pet):
    """Adds to biases of linear sites and to betas of LayerNorms; by default to all of a layer."""

    kind: Literal["bitfit"] = "bitfit"
    sites: Annotated[tuple[BiasName, ...], EachOnce] | None = None
    """None: every linear site and every norm of every layer, not that of the embeddings. Empty: the
    backbone as it is, with nothing stored."""

    @property
    def _names(self) -> tuple[str, ...]:
        return (*LINEAR_SITES, *NORM_SITES) if self.sites is None else self.sites

    def tensor_specs(self, shape: BackboneShape) -> dict[str, TensorSpec]:
        """`bias` [out] at linear sites, [hidden] at norms, [embedding] at the embeddings'."""
        specs = {}
        for layer, site in expand(self._names, shape):
            size = shape.linear_shape(site)[0] if site in LINEAR_SITES else shape.norm_size(site)
            specs[f"{place(layer, site)}.bias"] = TensorSpec((size,))
        return specs

    def decode(self, shape: BackboneShape, tensors: Tensors) -> dict[tuple[int, Site], SiteOps]:
        """`bias` ops at linear sites, `norm_bias` ops at norms."""
        ops: dict[tuple[int, Site], SiteOps] = {}
        for layer, site in expand(self._names, shape):
            bias = to_float32(tensors[f"{place(layer, site)}.bias"])
            is_linear = site in LINEAR_SITES
            ops[layer, site] = SiteOps(bias=bias) if is_linear else SiteOps(norm_bias=bias)
        return ops
