"""Bottleneck adapters of the library: which of its options mean which of ours.

The library's adapter reads x and is added to a residual e (`Adapter.pre_forward`, `forward`,
`post_forward`); with h, r and LN of the sub-layer,

    x = LN(h + r)   where original_ln_before, else h;    r where is_parallel
    e = h           where residual_before_ln, else x;    h + r for "post_add"
    z = e + scaling * gate(x) * up(activation(down(x))), with LayerNorms of its own in between
    result = LN(z + r)   where original_ln_after, else z

The gate is a mean over a row's tokens. Rows here have no padding; the library's mean includes it.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tasks.backbone_shape import LinearSite
from tasks.errors import KindUnsupported
from tasks.importers.activations import activation_of
from tasks.importers.adapterhub.compacter import PhmProjections
from tasks.importers.adapterhub.config import BottleneckConfig
from tasks.importers.adapterhub.source import Source
from tasks.importers.ledger import is_zero
from tasks.importers.part import Part, build
from tasks.importers.rounding import float32
from tasks.pets.adapter import Adapter
from tasks.pets.bottleneck import BottleneckPet, Placement
from tasks.pets.compacter import Compacter
from tasks.site_ops import AddsTo, NormAfter, Reads

Dense = dict[str, NDArray[np.float32]]

# What must be zero for a whole or a factored up projection to be.
_CHANGE_ENDINGS = ("_up.weight", "_up.blocks", "_up.right", "_up.bias")
_SITES: dict[Placement, tuple[LinearSite, ...]] = {
    "houlsby": ("attention_output", "ffn_output"),
    "pfeiffer": ("ffn_output",),
    "attention": ("attention_output",),
}


def import_bottleneck(config: BottleneckConfig, source: Source) -> list[Part]:
    """Return the adapter in the dense form.

    Raises:
        KindUnsupported: If it computes what no kind does.
        KeyMissing, BadCheckpoint: As `Ledger`.
    """
    _refuse_invertible(config, source)
    importer = _Importer(config, source)
    tensors: Dense = {}
    for layer, site in importer.places():
        tensors |= importer.adapter(layer, site)
    if not tensors:
        raise KindUnsupported("the configuration places no adapter in any layer")
    if is_zero(values for name, values in tensors.items() if name.endswith(_CHANGE_ENDINGS)):
        source.warn("zero_up", "all up projections are zero: the adapter was never trained")
    return [Part(importer.pet(), tensors)]


def _refuse_invertible(config: BottleneckConfig, source: Source) -> None:
    # Early versions named invertible adapters in the configuration of tasks that had none.
    has_tensors = any(
        name.startswith(f"invertible_adapters.{source.name}.") for name in source.ledger.names()
    )
    if has_tensors or (config.inv_adapter and not source.is_early_task):
        raise KindUnsupported(
            "invertible adapters change the embeddings through a network of their own, which no "
            "PET kind does: train again without inv_adapter"
        )


class _Importer:
    """One configuration, read once for all places."""

    def __init__(self, config: BottleneckConfig, source: Source) -> None:
        self._config = config
        self._source = source
        self._placement = _placement(config)
        self._reads, self._adds_to = _reads(config), _adds_to(config)
        self._norm_after = _norm_after(config)
        self._phm = PhmProjections(config, source) if config.phm_layer else None

    def places(self) -> Iterator[tuple[int, LinearSite]]:
        for layer in self._source.layers(self._config.leave_out):
            for site in _SITES[self._placement]:
                yield layer, site

    def pet(self) -> BottleneckPet:
        config, shape = self._config, self._source.shape
        widths = {layer: self._width(layer) for layer, _ in self.places()}
        usual = next(iter(widths.values()))
        left_out = tuple(sorted({layer for layer in config.leave_out if layer < shape.num_layers}))
        fields = {
            "placement": self._placement,
            "bottleneck": usual,
            "bottlenecks": {
                f"{layer}.{site}": widths[layer]
                for layer, site in self.places()
                if widths[layer] != usual
            }
            or None,
            "activation": activation_of(config.non_linearity),
            "leave_out": left_out or None,
            "own_norms": False,
            "reads": None if self._reads == "output" else self._reads,
            "adds_to": None if self._adds_to == "output" else self._adds_to,
            "norm_before": config.ln_before or None,
            "norm_after": self._norm_after,
            "gated": config.use_gating or None,
            "skips_norm": (not config.original_ln_after) or None,
        }
        if self._phm is None:
            return build(Adapter, **fields)
        return build(Compacter, **fields, **self._phm.fields())

    def adapter(self, layer: int, site: LinearSite) -> Dense:
        """Take the tensors of one place."""
        prefix = f"{self._source.places.bottleneck(layer, site)}.adapters.{self._source.name}"
        target = f"layers.{layer}.{site}.adapter"
        hidden = self._source.shape.hidden_size
        tensors: Dense = {}
        if self._config.ln_before:
            tensors |= self._norm(f"{prefix}.adapter_norm_before", f"{target}_norm_before")
            for name in ("weight", "bias"):
                copy = tensors[f"{target}_norm_before.{name}"]
                self._source.ledger.take_copy(f"{prefix}.adapter_down.0.{name}", copy)
        if self._norm_after:
            tensors |= self._norm(f"{prefix}.adapter_norm_after", f"{target}_norm_after")
        if self._config.use_gating:
            weight = self._source.ledger.take(f"{prefix}.gate.weight", 1, hidden)
            tensors[f"{target}_gate.weight"] = float32(weight[0])
            tensors[f"{target}_gate.bias"] = self._source.ledger.take(f"{prefix}.gate.bias", 1)
        return tensors | self._projections(prefix, target, self._width(layer))

    def _projections(self, prefix: str, target: str, width: int) -> Dense:
        hidden, scale = self._source.shape.hidden_size, self._scale(prefix)
        down = f"{prefix}.adapter_down.{int(self._config.ln_before)}"
        up = f"{prefix}.adapter_up"
        if self._phm is not None:
            one = np.ones(1, np.float32)
            return self._phm.projection(down, f"{target}_down", hidden, width, one) | (
                self._phm.projection(up, f"{target}_up", width, hidden, scale)
            )
        take = self._source.ledger.take
        return {
            f"{target}_down.weight": take(f"{down}.weight", width, hidden),
            f"{target}_down.bias": take(f"{down}.bias", width),
            f"{target}_up.weight": float32(scale[:, None] * take(f"{up}.weight", hidden, width)),
            f"{target}_up.bias": float32(scale * take(f"{up}.bias", hidden)),
        }

    def _scale(self, prefix: str) -> NDArray[np.float32]:
        """What the up projection is multiplied by: of shape (1,) or (hidden,)."""
        scaling = self._config.scaling
        if scaling == "channel":
            return self._source.ledger.take(f"{prefix}.scaling", self._source.shape.hidden_size)
        if scaling == "learned":
            return self._source.ledger.take(f"{prefix}.scaling", 1)
        return np.array([scaling], np.float32)

    def _norm(self, prefix: str, target: str) -> Dense:
        hidden = self._source.shape.hidden_size
        return {
            f"{target}.{name}": self._source.ledger.take(f"{prefix}.{name}", hidden)
            for name in ("weight", "bias")
        }

    def _width(self, layer: int) -> int:
        factor = self._config.reduction_factor
        if isinstance(factor, dict):
            found = factor.get(str(layer), factor.get("default"))
            if found is None:
                raise KindUnsupported(
                    f"reduction_factor has neither layer {layer} nor a default: the library "
                    f"refuses such a configuration, too"
                )
            factor = found
        return max(1, int(self._source.shape.hidden_size // factor))


def _placement(config: BottleneckConfig) -> Placement:
    if config.mh_adapter and config.output_adapter:
        return "houlsby"
    if not config.mh_adapter and not config.output_adapter:
        raise KindUnsupported("the configuration has neither mh_adapter nor output_adapter")
    return "attention" if config.mh_adapter else "pfeiffer"


def _reads(config: BottleneckConfig) -> Reads:
    if config.is_parallel:
        return "input"
    return "normed" if config.original_ln_before else "output"


def _adds_to(config: BottleneckConfig) -> AddsTo:
    if config.is_parallel or config.residual_before_ln is True:
        return "output"
    if config.residual_before_ln == "post_add":
        if not config.original_ln_before:
            raise KindUnsupported(
                "residual_before_ln is post_add without original_ln_before: the library cannot run "
                "such an adapter"
            )
        return "summed"
    return "normed" if config.original_ln_before else "output"


def _norm_after(config: BottleneckConfig) -> NormAfter | None:
    if not config.ln_after:
        return None
    is_inside = config.adapter_residual_before_ln and not config.is_parallel
    return "sum" if is_inside else "change"
