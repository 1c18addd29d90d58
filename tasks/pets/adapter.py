"""Bottleneck adapters with whole projections. Houlsby et al., ICML 2019; Pfeiffer et al., 2020."""

from typing import Any, Literal

from tasks.backbone_shape import BackboneShape
from tasks.pets.bottleneck import BottleneckPet
from tasks.pets.pet import Tensors, TensorSpec, to_float32


class Adapter(BottleneckPet):
    """h + up(activation(down(h))), or one of its variants (`BottleneckPet`)."""

    kind: Literal["adapter"] = "adapter"

    def projection_specs(
        self, prefix: str, num_in: int, num_out: int, shape: BackboneShape
    ) -> dict[str, TensorSpec]:
        """`weight` [out, in] and `bias` [out]."""
        return {
            f"{prefix}.weight": TensorSpec((num_out, num_in)),
            f"{prefix}.bias": TensorSpec((num_out,)),
        }

    def decode_projection(self, prefix: str, tensors: Tensors) -> tuple[Any, Any]:
        """Return them as they are."""
        return to_float32(tensors[f"{prefix}.weight"]), to_float32(tensors[f"{prefix}.bias"])
