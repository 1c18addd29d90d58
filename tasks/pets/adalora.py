"""AdaLoRA: LoRA in the form of a singular value decomposition. Zhang et al., ICLR 2023."""

from dataclasses import replace
from typing import Literal

from tasks.backbone_shape import BackboneShape, Site
from tasks.pets.low_rank import LowRankPet
from tasks.pets.pet import Tensors, TensorSpec, to_float32
from tasks.pets.site_names import place
from tasks.site_ops import LowRank

_GUARD = 1e-5
"""Added to the rank by the library that trains it."""


class AdaLora(LowRankPet):
    """y += alpha / rank * (x (E * A)^T) B^T; training prunes ranks, the scale's stays."""

    kind: Literal["adalora"] = "adalora"

    def scale_at(self, layer: int, site: Site) -> float:
        """Return alpha over the rank that training began with, the same at each place."""
        return self.alpha / (self.rank + _GUARD)

    def tensor_specs(self, shape: BackboneShape) -> dict[str, TensorSpec]:
        """The factors and `lora_e` [rank] at each place."""
        specs = super().tensor_specs(shape)
        for layer, site in self.places(shape):
            rank = self.rank_at(layer, site)
            specs[f"{place(layer, site)}.lora_e"] = TensorSpec((rank,))
        return specs

    def low_rank(self, tensors: Tensors, layer: int, site: Site) -> LowRank:
        """Return the op of one place: the singular values are multiplied into A."""
        values = to_float32(tensors[f"{place(layer, site)}.lora_e"])
        factors = super().low_rank(tensors, layer, site)
        return replace(factors, a=to_float32(values[:, None] * factors.a))
