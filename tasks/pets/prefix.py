"""Prefix tuning: trained keys and values in front of each layer's. Li and Liang, ACL 2021."""

from typing import Annotated, Literal

from pydantic import Field

from tasks.backbone_shape import BackboneShape, Site
from tasks.errors import TooManyTokens
from tasks.pets.gate import decode_gate, gate_specs
from tasks.pets.pet import Pet, Tensors, TensorSpec, to_float32
from tasks.site_ops import Prefix as PrefixOp
from tasks.site_ops import SiteOps


class Prefix(Pet):
    """Each attention of each layer sees `num_tokens` keys and values of the task's own."""

    kind: Literal["prefix"] = "prefix"
    num_tokens: Annotated[int, Field(ge=1, le=1024)]
    moves_positions: bool | None = None
    """Whether the row's own tokens get the positions behind the prefix, as PEFT has it."""
    leave_out: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    """Layers without a prefix."""
    gated: bool | None = None
    """Keys and values are multiplied by a gate over the layer's input (UniPELT)."""

    def reserved_positions(self) -> int:
        """Return how many positions of the backbone rows cannot have."""
        return self.num_tokens if self.moves_positions else 0

    def _layers(self, shape: BackboneShape) -> list[int]:
        return [i for i in range(shape.num_layers) if i not in (self.leave_out or ())]

    def tensor_specs(self, shape: BackboneShape) -> dict[str, TensorSpec]:
        """`prefix_keys` and `prefix_values` [num_tokens, hidden] at `attention`."""
        if self.reserved_positions() >= shape.max_positions:
            raise TooManyTokens(
                f"a prefix of {self.num_tokens} tokens leaves none of the backbone's "
                f"{shape.max_positions} positions: train with a shorter one"
            )
        specs = {}
        for layer in self._layers(shape):
            prefix = f"layers.{layer}.attention.prefix"
            for tensor in ("keys", "values"):
                specs[f"{prefix}_{tensor}"] = TensorSpec((self.num_tokens, shape.hidden_size))
            if self.gated:
                specs |= gate_specs(prefix, shape.hidden_size)
        return specs

    def decode(self, shape: BackboneShape, tensors: Tensors) -> dict[tuple[int, Site], SiteOps]:
        """A `prefix` op per layer; `position_offset` where positions move."""
        ops: dict[tuple[int, Site], SiteOps] = {}
        for layer in self._layers(shape):
            prefix = f"layers.{layer}.attention.prefix"
            ops[layer, "attention"] = SiteOps(
                prefix=PrefixOp(
                    keys=to_float32(tensors[f"{prefix}_keys"]),
                    values=to_float32(tensors[f"{prefix}_values"]),
                    gate=decode_gate(prefix, tensors) if self.gated else None,
                )
            )
        if self.moves_positions:
            ops[0, "embeddings"] = SiteOps(position_offset=self.num_tokens)
        return ops
