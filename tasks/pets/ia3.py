"""IA3: learned scales on keys, values and the inner activations. Liu et al., NeurIPS 2022."""

from typing import Annotated, Literal

from pydantic import model_validator

from tasks.backbone_shape import BackboneShape, Site
from tasks.pets.pet import Pet, Tensors, TensorSpec, to_float32
from tasks.pets.site_names import EachOnce, LinearName, check_each_once, expand_linear, place
from tasks.site_ops import SiteOps


class Ia3(Pet):
    """Scales outputs (bias included) and inputs of linear sites.

    By default, as in the paper, the outputs of key and value and the input of ffn_output.
    """

    kind: Literal["ia3"] = "ia3"
    output_sites: Annotated[tuple[LinearName, ...], EachOnce] | None = None
    """None: key and value."""
    input_sites: Annotated[tuple[LinearName, ...], EachOnce] | None = None
    """None: ffn_output."""

    @model_validator(mode="after")
    def _scales_a_site_once(self) -> "Ia3":
        if self.output_sites == () == self.input_sites:
            raise ValueError("it scales nothing")
        check_each_once((*self._outputs, *self._inputs))
        return self

    @property
    def _outputs(self) -> tuple[str, ...]:
        return ("key", "value") if self.output_sites is None else self.output_sites

    @property
    def _inputs(self) -> tuple[str, ...]:
        return ("ffn_output",) if self.input_sites is None else self.input_sites

    def tensor_specs(self, shape: BackboneShape) -> dict[str, TensorSpec]:
        """`scale` [out] where outputs are scaled, `scale` [in] where inputs are."""
        specs = {}
        for layer, site in expand_linear(self._outputs, shape):
            num_out, _ = shape.linear_shape(site)
            specs[f"{place(layer, site)}.scale"] = TensorSpec((num_out,))
        for layer, site in expand_linear(self._inputs, shape):
            _, num_in = shape.linear_shape(site)
            specs[f"{place(layer, site)}.scale"] = TensorSpec((num_in,))
        return specs

    def decode(self, shape: BackboneShape, tensors: Tensors) -> dict[tuple[int, Site], SiteOps]:
        """`output_scale` and `input_scale` ops."""
        ops: dict[tuple[int, Site], SiteOps] = {}
        for layer, site in expand_linear(self._outputs, shape):
            scale = to_float32(tensors[f"{place(layer, site)}.scale"])
            ops[layer, site] = SiteOps(output_scale=scale)
        for layer, site in expand_linear(self._inputs, shape):
            scale = to_float32(tensors[f"{place(layer, site)}.scale"])
            ops[layer, site] = SiteOps(input_scale=scale)
        return ops
