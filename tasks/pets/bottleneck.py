"""What adapters of all kinds share: where they stand, what they read and what follows them.

The adapter acts on the dense output with its bias, h = x W^T + b, as in the papers and unlike the
code of PetS, which feeds it the output without bias. The options are those in which published
adapters differ (Houlsby et al., ICML 2019; Pfeiffer et al., EMNLP 2020; He et al., ICLR 2022).
"""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field

from tasks.backbone_shape import BackboneShape, LinearSite, NormSite, Site
from tasks.errors import RankOutOfRange
from tasks.pets.gate import decode_gate, gate_specs
from tasks.pets.pet import Pet, Tensors, TensorSpec, to_float32
from tasks.pets.site_names import LinearName, at
from tasks.site_ops import (
    Activation,
    AddsTo,
    Bottleneck,
    Norm,
    NormAfter,
    Reads,
    SiteOps,
)

Placement = Literal["houlsby", "pfeiffer", "attention"]
Width = Annotated[int, Field(ge=1, le=4096)]

_ADAPTED: dict[Placement, tuple[tuple[LinearSite, NormSite], ...]] = {
    "houlsby": (("attention_output", "attention_norm"), ("ffn_output", "ffn_norm")),
    "pfeiffer": (("ffn_output", "ffn_norm"),),
    "attention": (("attention_output", "attention_norm"),),
}


class BottleneckPet(Pet):
    """An adapter behind both sub-layers (houlsby), the second (pfeiffer) or the first."""

    placement: Placement
    bottleneck: Width
    activation: Activation
    bottlenecks: dict[LinearName, Width] | None = None
    """Bottlenecks that differ from `bottleneck`, by site name."""
    leave_out: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    """Layers without adapters."""
    own_norms: bool | None = None
    """Deltas for the LayerNorm behind each adapter. None: yes."""
    reads: Reads | None = None
    """None: `output`."""
    adds_to: AddsTo | None = None
    """None: `output`."""
    norm_before: bool | None = None
    """A LayerNorm before the down projection."""
    norm_after: NormAfter | None = None
    """A LayerNorm behind the up projection, on the change or on its sum."""
    gated: bool | None = None
    """The change is multiplied by a gate over what the adapter reads (UniPELT)."""
    skips_norm: bool | None = None
    """The adapter's result is the sub-layer's: no residual, no LayerNorm follow."""

    def places(self, shape: BackboneShape) -> Iterator[tuple[int, LinearSite, NormSite]]:
        """Yield (layer, adapted site, norm behind it)."""
        for layer in range(shape.num_layers):
            if layer not in (self.leave_out or ()):
                for site, norm in _ADAPTED[self.placement]:
                    yield layer, site, norm

    def width_at(self, layer: int, site: LinearSite) -> int:
        """Return the bottleneck of one place."""
        return at(self.bottlenecks, layer, site, self.bottleneck)

    @property
    def has_own_norms(self) -> bool:
        """Whether the LayerNorms behind the adapters are the task's own."""
        return self.own_norms is not False

    @abstractmethod
    def projection_specs(
        self, prefix: str, num_in: int, num_out: int, shape: BackboneShape
    ) -> dict[str, TensorSpec]:
        """Return the tensors of one projection, whose names begin with `prefix`."""

    @abstractmethod
    def decode_projection(self, prefix: str, tensors: Tensors) -> tuple[Any, Any]:
        """Return weight [out, in] or its factors, and bias [out], of one projection, float32."""

    def tensor_specs(self, shape: BackboneShape) -> dict[str, TensorSpec]:
        """Both projections of each adapter, its norms and gate, and deltas of the norm behind."""
        hidden = shape.hidden_size
        specs: dict[str, TensorSpec] = {}
        for layer, site, norm in self.places(shape):
            width = self.width_at(layer, site)
            if width > hidden:
                raise RankOutOfRange(
                    f"bottleneck {width} is wider than the backbone ({hidden}): "
                    f"train with a smaller one"
                )
            adapter = f"layers.{layer}.{site}.adapter"
            specs |= self.projection_specs(f"{adapter}_down", hidden, width, shape)
            specs |= self.projection_specs(f"{adapter}_up", width, hidden, shape)
            norms = []
            if self.norm_before:
                norms.append(f"{adapter}_norm_before")
            if self.norm_after:
                norms.append(f"{adapter}_norm_after")
            if self.has_own_norms:
                norms.append(f"layers.{layer}.{norm}")
            for name in norms:
                specs[f"{name}.weight"] = TensorSpec((hidden,))
                specs[f"{name}.bias"] = TensorSpec((hidden,))
            if self.gated:
                specs |= gate_specs(adapter, hidden)
        return specs

    def decode(self, shape: BackboneShape, tensors: Tensors) -> dict[tuple[int, Site], SiteOps]:
        """An `adapter` op at each adapted site and norm deltas behind it."""
        ops: dict[tuple[int, Site], SiteOps] = {}
        for layer, site, norm in self.places(shape):
            ops[layer, site] = SiteOps(adapter=self._adapter(f"layers.{layer}.{site}", tensors))
            if self.has_own_norms:
                ops[layer, norm] = SiteOps(
                    norm_weight=to_float32(tensors[f"layers.{layer}.{norm}.weight"]),
                    norm_bias=to_float32(tensors[f"layers.{layer}.{norm}.bias"]),
                )
        return ops

    def _adapter(self, prefix: str, tensors: Tensors) -> Bottleneck:
        adapter = f"{prefix}.adapter"
        down_weight, down_bias = self.decode_projection(f"{adapter}_down", tensors)
        up_weight, up_bias = self.decode_projection(f"{adapter}_up", tensors)
        op = Bottleneck(
            down_weight=down_weight,
            down_bias=down_bias,
            up_weight=up_weight,
            up_bias=up_bias,
            activation=self.activation,
            reads=self.reads or "output",
            adds_to=self.adds_to or "output",
            skips_norm=bool(self.skips_norm),
        )
        if self.norm_before:
            op = replace(op, norm_before=_norm(f"{adapter}_norm_before", tensors))
        if self.norm_after:
            norm_after = _norm(f"{adapter}_norm_after", tensors)
            op = replace(op, norm_after=norm_after, norm_after_on=self.norm_after)
        if self.gated:
            op = replace(op, gate=decode_gate(adapter, tensors))
        return op


def _norm(prefix: str, tensors: Tensors) -> Norm:
    return Norm(to_float32(tensors[f"{prefix}.weight"]), to_float32(tensors[f"{prefix}.bias"]))
