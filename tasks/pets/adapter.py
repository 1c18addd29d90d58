"""Bottleneck adapters, in the placements of Houlsby et al. (ICML 2019) and Pfeiffer et al. (2020).

The adapter acts on the dense output with its bias, h = x W^T + b, as in the papers and unlike the
code of PetS, which feeds it the output without bias.
"""

from typing import Annotated, Literal

from pydantic import Field

from tasks.backbone_shape import BackboneShape, LinearSite, NormSite, Site
from tasks.errors import RankOutOfRange
from tasks.pets.pet import Pet, Tensors, TensorSpec, to_float32
from tasks.site_ops import Activation, Bottleneck, SiteOps

Placement = Literal["houlsby", "pfeiffer"]

# Each adapter sits before the residual add of its sub-layer; the norm after it is the task's own.
_ADAPTED: dict[Placement, tuple[tuple[LinearSite, NormSite], ...]] = {
    "houlsby": (("attention_output", "attention_norm"), ("ffn_output", "ffn_norm")),
    "pfeiffer": (("ffn_output", "ffn_norm"),),
}


class Adapter(Pet):
    """h + up(activation(down(h))) at both sub-layers' outputs (houlsby) or the last (pfeiffer)."""

    kind: Literal["adapter"] = "adapter"
    placement: Placement
    bottleneck: Annotated[int, Field(ge=1, le=4096)]
    activation: Activation

    def tensor_specs(self, shape: BackboneShape) -> dict[str, TensorSpec]:
        """Both projections with biases, and the deltas of the norm that follows."""
        hidden = shape.hidden_size
        if self.bottleneck > hidden:
            raise RankOutOfRange(
                f"bottleneck {self.bottleneck} is wider than the backbone ({hidden}): "
                f"train with a smaller one"
            )
        specs = {}
        for layer in range(shape.num_layers):
            for site, norm in _ADAPTED[self.placement]:
                adapter = f"layers.{layer}.{site}.adapter"
                specs[f"{adapter}_down.weight"] = TensorSpec((self.bottleneck, hidden))
                specs[f"{adapter}_down.bias"] = TensorSpec((self.bottleneck,))
                specs[f"{adapter}_up.weight"] = TensorSpec((hidden, self.bottleneck))
                specs[f"{adapter}_up.bias"] = TensorSpec((hidden,))
                specs[f"layers.{layer}.{norm}.weight"] = TensorSpec((hidden,))
                specs[f"layers.{layer}.{norm}.bias"] = TensorSpec((hidden,))
        return specs

    def decode(self, shape: BackboneShape, tensors: Tensors) -> dict[tuple[int, Site], SiteOps]:
        """An `adapter` op at each adapted site and norm deltas behind it."""
        ops: dict[tuple[int, Site], SiteOps] = {}
        for layer in range(shape.num_layers):
            for site, norm in _ADAPTED[self.placement]:
                adapter = f"layers.{layer}.{site}.adapter"
                ops[layer, site] = SiteOps(
                    adapter=Bottleneck(
                        down_weight=to_float32(tensors[f"{adapter}_down.weight"]),
                        down_bias=to_float32(tensors[f"{adapter}_down.bias"]),
                        up_weight=to_float32(tensors[f"{adapter}_up.weight"]),
                        up_bias=to_float32(tensors[f"{adapter}_up.bias"]),
                        activation=self.activation,
                    )
                )
                ops[layer, norm] = SiteOps(
                    norm_weight=to_float32(tensors[f"layers.{layer}.{norm}.weight"]),
                    norm_bias=to_float32(tensors[f"layers.{layer}.{norm}.bias"]),
                )
        return ops
