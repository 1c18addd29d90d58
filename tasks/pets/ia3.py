"""IA3: learned scales on keys, values and the inner activations. Liu et al., NeurIPS 2022."""

from typing import Literal

from tasks.backbone_shape import BackboneShape, LinearSite, Site
from tasks.pets.pet import Pet, Tensors, TensorSpec, to_float32
from tasks.site_ops import SiteOps

_OUTPUT_SCALED: tuple[LinearSite, ...] = ("key", "value")
_INPUT_SCALED: LinearSite = "ffn_output"


class Ia3(Pet):
    """Scales the outputs of key and value (bias included) and the input of ffn_output."""

    kind: Literal["ia3"] = "ia3"

    def tensor_specs(self, shape: BackboneShape) -> dict[str, TensorSpec]:
        """`scale` [out] at key and value, `scale` [in] at ffn_output."""
        specs = {}
        for layer in range(shape.num_layers):
            for site in _OUTPUT_SCALED:
                specs[f"layers.{layer}.{site}.scale"] = TensorSpec((shape.hidden_size,))
            specs[f"layers.{layer}.{_INPUT_SCALED}.scale"] = TensorSpec((shape.intermediate_size,))
        return specs

    def decode(self, shape: BackboneShape, tensors: Tensors) -> dict[tuple[int, Site], SiteOps]:
        """`output_scale` and `input_scale` ops."""
        ops: dict[tuple[int, Site], SiteOps] = {}
        for layer in range(shape.num_layers):
            for site in _OUTPUT_SCALED:
                scale = to_float32(tensors[f"layers.{layer}.{site}.scale"])
                ops[layer, site] = SiteOps(output_scale=scale)
            scale = to_float32(tensors[f"layers.{layer}.{_INPUT_SCALED}.scale"])
            ops[layer, _INPUT_SCALED] = SiteOps(input_scale=scale)
        return ops
