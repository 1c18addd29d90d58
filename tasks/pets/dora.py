"""DoRA: LoRA on the direction of each weight row, beside its length. Liu et al., ICML 2024."""

from dataclasses import replace
from typing import Literal

from tasks.backbone_shape import BackboneShape, Site
from tasks.pets.low_rank import ScaledLowRankPet
from tasks.pets.pet import Tensors, TensorSpec, to_float32
from tasks.pets.site_names import place
from tasks.site_ops import SiteOps


class Dora(ScaledLowRankPet):
    """y = m / ||V|| * x V^T + b with V = W + scale * B A, norms taken row by row."""

    kind: Literal["dora"] = "dora"

    def tensor_specs(self, shape: BackboneShape) -> dict[str, TensorSpec]:
        """The factors and `magnitude` [out] at each place."""
        specs = super().tensor_specs(shape)
        for layer, site in self.places(shape):
            num_out, _ = shape.linear_shape(site)
            specs[f"{place(layer, site)}.magnitude"] = TensorSpec((num_out,))
        return specs

    def decode(self, shape: BackboneShape, tensors: Tensors) -> dict[tuple[int, Site], SiteOps]:
        """A `low_rank` op with a `magnitude` per place."""
        return {
            (layer, site): replace(
                found, magnitude=to_float32(tensors[f"{place(layer, site)}.magnitude"])
            )
            for (layer, site), found in super().decode(shape, tensors).items()
        }
