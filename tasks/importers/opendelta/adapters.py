"""OpenDelta's adapters: whole, with projections of rank 1, and parallel ones.

An adapter stands behind a module: with the module's output h, h + up(activation(down(h))). Behind
a linear module h is our sub-layer's output. Behind one that ends with the LayerNorm the adapter
reads and adds to what the LayerNorm puts out, and nothing follows it.

A parallel adapter reads a module's input. OpenDelta puts one around the whole attention, LayerNorm
included, and one around the feed-forward's two linear modules.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tasks.errors import BadCheckpoint, KeyMissing, KindUnsupported, WrongBackbone
from tasks.importers.activations import activation_of
from tasks.importers.imported import Finding
from tasks.importers.ledger import is_zero, merge
from tasks.importers.opendelta.source import Source
from tasks.importers.part import Part, build
from tasks.importers.rounding import float32
from tasks.pets.adapter import Adapter
from tasks.pets.bottleneck import Placement
from tasks.site_ops import AddsTo, Reads

Form = Literal["adapter", "low_rank_adapter", "parallel_adapter"]
_Site = Literal["attention_output", "ffn_output"]
_Dense = dict[str, NDArray[np.float32]]

_PARALLEL_MODULES = ["attn@", "attn@", "ff@.w1@", "ff@.w2@"]
# Modules of a BERT layer that end with its LayerNorms.
_NORMED_MODULES: Mapping[str, _Site] = {
    "attention": "attention_output",
    "attention.output": "attention_output",
    "output": "ffn_output",
}
_PLACEMENTS: Mapping[_Site, Placement] = {
    "attention_output": "attention",
    "ffn_output": "pfeiffer",
}


@dataclass(frozen=True, slots=True)
class _Mode:
    """What adapters of one kind read, and what they are added to."""

    reads: Reads
    adds_to: AddsTo


_BEHIND_DENSE = _Mode("output", "output")
_BEHIND_NORM = _Mode("normed", "normed")


@dataclass(frozen=True, slots=True)
class _Stand:
    """How adapters stand at one site."""

    site: _Site
    mode: _Mode


def import_adapters(form: Form, source: Source) -> list[Part]:
    """Return the adapters in the dense form, one part for each way in which they stand.

    Raises:
        KindUnsupported: If one stands where none can, or computes what none does.
        KeyMissing, BadCheckpoint: As `Ledger`.
    """
    groups: dict[_Stand, dict[int, _Dense]] = {}
    for module in source.modules_with(*(f"{form}.{ending}" for ending in _endings(form))):
        layer, stand = _stand(form, module, source)
        if layer >= source.shape.num_layers:
            raise WrongBackbone(
                f"{module} has an adapter, and the backbone {source.shape.num_layers} layers: "
                f"import it for the backbone that it was trained on"
            )
        if layer in groups.setdefault(stand, {}):
            raise BadCheckpoint(f"{module} has the second adapter at one place")
        groups[stand][layer] = _take(
            form, f"{module}.{form}", f"layers.{layer}.{stand.site}", source
        )
    if not groups:
        raise KeyMissing(f"the checkpoint has no {form}: it was not copied whole")
    ups = [t for group in groups.values() for place in group.values() for t in _ups(place)]
    if is_zero(ups):
        message = "all up projections are zero: the adapter was never trained"
        source.findings.append(Finding("warning", "zero_up", message))
    for group in groups.values():
        source.tell_layers(set(group))
    return _parts(groups, source)


def _endings(form: Form) -> tuple[str, ...]:
    if form == "low_rank_adapter":
        return tuple(
            f"{projection}.{tensor}"
            for projection in ("down_sampler", "up_sampler")
            for tensor in ("W_left", "W_right", "b")
        )
    return tuple(
        f"modulelist.{projection}.{tensor}"
        for projection in ("down_proj", "up_proj")
        for tensor in ("weight", "bias")
    )


def _stand(form: Form, module: str, source: Source) -> tuple[int, _Stand]:
    found = source.names.split(module)
    if found is not None:
        layer, inner = found
        if form == "parallel_adapter":
            stand = _parallel_stand(inner, source)
        else:
            stand = _sequential_stand(inner, source)
        if stand is not None:
            return layer, stand
    raise KindUnsupported(
        f"{form} at {module}: one can stand behind a layer's two sub-layers; train it again there"
    )


def _sequential_stand(inner: str, source: Source) -> _Stand | None:
    sites: tuple[_Site, _Site] = ("attention_output", "ffn_output")
    for site in sites:
        if source.names.modules[site] == inner:
            return _Stand(site, _BEHIND_DENSE)
    if source.names.is_like_bert and inner in _NORMED_MODULES:
        return _Stand(_NORMED_MODULES[inner], _BEHIND_NORM)
    return None


def _parallel_stand(inner: str, source: Source) -> _Stand | None:
    # Only one of the two modules around which an adapter stands is in the names of its tensors.
    if source.config.modified_modules not in (None, _PARALLEL_MODULES):
        raise KindUnsupported(
            "parallel adapters around modules of one's own choice are not imported: the "
            "checkpoint does not say which of them belong together"
        )
    if source.names.is_like_bert and inner == "attention":
        return _Stand("attention_output", _Mode("input", "normed"))
    if source.names.is_like_bert and inner == source.names.modules["ffn_input"]:
        return _Stand("ffn_output", _Mode("input", "output"))
    return None


def _parts(groups: Mapping[_Stand, dict[int, _Dense]], source: Source) -> list[Part]:
    """Return one part for each mode, or for each site where those stand in different layers."""
    parts = []
    for mode in dict.fromkeys(stand.mode for stand in groups):
        sites = {stand.site: group for stand, group in groups.items() if stand.mode == mode}
        layers = [set(group) for group in sites.values()]
        if len(sites) == 2 and layers[0] == layers[1]:
            parts.append(_part("houlsby", mode, list(sites.values()), source))
        else:
            parts += [
                _part(_PLACEMENTS[site], mode, [group], source) for site, group in sites.items()
            ]
    return parts


def _part(
    placement: Placement, mode: _Mode, groups: list[dict[int, _Dense]], source: Source
) -> Part:
    tensors = merge(place for group in groups for place in group.values())
    group = groups[0]
    left_out = tuple(i for i in range(source.shape.num_layers) if i not in group)
    pet = build(
        Adapter,
        placement=placement,
        bottleneck=_width(source),
        activation=activation_of(_own_name(source.config.non_linearity)),
        leave_out=left_out or None,
        own_norms=False,
        reads=None if mode.reads == "output" else mode.reads,
        adds_to=None if mode.adds_to == "output" else mode.adds_to,
        skips_norm=(mode.adds_to == "normed") or None,
    )
    return Part(pet, tensors)


def _take(form: Form, prefix: str, target: str, source: Source) -> _Dense:
    hidden, width = source.shape.hidden_size, _width(source)
    sizes = {"down": (width, hidden), "up": (hidden, width)}
    tensors: _Dense = {}
    for name, (num_out, num_in) in sizes.items():
        goal = f"{target}.adapter_{name}"
        if form == "low_rank_adapter":
            one = f"{prefix}.{name}_sampler"
            # A column and a row, which the library multiplies element by element.
            left = source.ledger.take(f"{one}.W_left", num_in, 1)
            right = source.ledger.take(f"{one}.W_right", 1, num_out)
            tensors[f"{goal}.weight"] = float32((left * right).T)
            tensors[f"{goal}.bias"] = source.ledger.take(f"{one}.b", num_out)
        else:
            one = f"{prefix}.modulelist.{name}_proj"
            tensors[f"{goal}.weight"] = source.ledger.take(f"{one}.weight", num_out, num_in)
            tensors[f"{goal}.bias"] = source.ledger.take(f"{one}.bias", num_out)
    return tensors


def _width(source: Source) -> int:
    if source.config.delta_type != "low_rank_adapter":
        return source.config.bottleneck_dim
    if source.config.low_rank_rank != 1:
        raise KindUnsupported(
            f"a low_rank_adapter of rank {source.config.low_rank_rank}: the library multiplies its "
            f"factors element by element, which works with rank 1 only"
        )
    return max(1, source.shape.hidden_size // source.config.reduction_factor)


def _own_name(activation: str) -> str:
    """OpenDelta has one name of its own."""
    return "gelu" if activation.lower() == "gelu_orig" else activation


def _ups(tensors: _Dense) -> list[NDArray[np.float32]]:
    return [tensor for name, tensor in tensors.items() if "adapter_up." in name]
