"""LoRA: a low-rank matrix beside each chosen weight. Hu et al., ICLR 2022."""

from dataclasses import replace
from typing import Literal

from tasks.backbone_shape import BackboneShape, Site
from tasks.pets.gate import decode_gate, gate_specs
from tasks.pets.low_rank import ScaledLowRankPet
from tasks.pets.pet import Tensors, TensorSpec
from tasks.pets.site_names import place
from tasks.site_ops import SiteOps


class Lora(ScaledLowRankPet):
    """y += scale * (x A^T) B^T at each of `sites`, with scale alpha / rank."""

    kind: Literal["lora"] = "lora"
    gated: bool | None = None
    """Each place's product is multiplied by a gate over its input (UniPELT)."""

    def tensor_specs(self, shape: BackboneShape) -> dict[str, TensorSpec]:
        """The factors, and `lora_gate.weight` [in], `lora_gate.bias` [1] where gated."""
        specs = super().tensor_specs(shape)
        if self.gated:
            for layer, site in self.places(shape):
                _, num_in = shape.linear_shape(site)
                specs |= gate_specs(f"{place(layer, site)}.lora", num_in)
        return specs

    def decode(self, shape: BackboneShape, tensors: Tensors) -> dict[tuple[int, Site], SiteOps]:
        """A `low_rank` op per place, with its gate."""
        ops = super().decode(shape, tensors)
        if self.gated:
            for (layer, site), found in ops.items():
                assert found.low_rank is not None
                gate = decode_gate(f"{place(layer, site)}.lora", tensors)
                ops[layer, site] = replace(found, low_rank=replace(found.low_rank, gate=gate))
        return ops
