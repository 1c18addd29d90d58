"""LoRA, DoRA, VeRA and IA3, which are one module of the library with many options.

    y = W x + b + scale * gate(x) * B A x        LoRA: scale alpha / r, but 1 where it is gated
    y = m / ||W + B A|| * (that)                 DoRA: the norm has no scale, and b is scaled, too
    y = (alpha * l) * (W x + b)                  IA3

VeRA's B A is a product of four matrices, two of them shared by all places. In DoRA all factors but
x are constants, so that it is a LoRA whose output is scaled; that is not what the paper and PEFT
compute, which `tasks.pets.dora` is. The gate is a mean over a row's tokens: rows here have no
padding, while the library's mean includes it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.backbone_shape import LinearSite
from tasks.errors import BadCheckpoint, KindUnsupported
from tasks.importers.adapterhub.config import LowRankConfig
from tasks.importers.adapterhub.source import Source
from tasks.importers.ledger import is_zero
from tasks.importers.part import Part, build
from tasks.importers.rounding import float32
from tasks.pets.ia3 import Ia3
from tasks.pets.lora import Lora
from tasks.pets.site_names import place

_ATTENTION: dict[str, LinearSite] = {"q": "query", "k": "key", "v": "value"}


def import_low_rank(config: LowRankConfig, source: Source) -> list[Part]:
    """Return the method in the dense form: one part, or two for DoRA.

    Raises:
        KindUnsupported: If it computes what no kind does.
        KeyMissing, BadCheckpoint: As `Ledger`.
    """
    places = _places(config, source)
    if not places:
        raise KindUnsupported("the configuration adapts no module of any layer")
    if config.composition_mode == "scale":
        return [_ia3(config, source, places)]
    return _lora(config, source, places)


@dataclass(frozen=True, slots=True)
class _Place:
    layer: int
    site: LinearSite
    prefix: str
    """What the names of its tensors in the checkpoint begin with."""


def _places(config: LowRankConfig, source: Source) -> list[_Place]:
    sites: list[LinearSite] = []
    if config.selfattn_lora:
        sites += [site for key, site in _ATTENTION.items() if key in config.attn_matrices]
    if config.intermediate_lora:
        sites.append("ffn_input")
    if config.output_lora:
        sites.append("ffn_output")
    return [
        _Place(layer, site, f"{source.places.linear(layer, site)}.loras.{source.name}")
        for site in sites
        for layer in source.layers(config.leave_out)
    ]


def _site_names(places: list[_Place], source: Source) -> tuple[str, ...]:
    """Name the sites, with their layers only where some are left out."""
    sites = list(dict.fromkeys(found.site for found in places))
    if len(places) == len(sites) * source.shape.num_layers:
        return tuple(sites)
    return tuple(f"{found.layer}.{found.site}" for found in places)


def _ia3(config: LowRankConfig, source: Source, places: list[_Place]) -> Part:
    if config.use_gating:
        raise KindUnsupported(
            "a gated IA3 scales by how a row's tokens are on average, which no PET kind does: "
            "train again without use_gating"
        )
    if config.r != 1:
        raise KindUnsupported(f"IA3 with r {config.r}: the library knows 1 only")
    tensors = {}
    for found in places:
        num_out, _ = source.shape.linear_shape(found.site)
        scale = source.ledger.take(f"{found.prefix}.lora_B", num_out, 1)[:, 0]
        tensors[f"{place(found.layer, found.site)}.scale"] = float32(config.alpha * scale)
    names = _site_names(places, source)
    return Part(build(Ia3, output_sites=names, input_sites=()), tensors)


def _lora(config: LowRankConfig, source: Source, places: list[_Place]) -> list[Part]:
    gated = config.use_gating
    tensors, scales = {}, {}
    for found in places:
        target = place(found.layer, found.site)
        a, b = _factors(config, source, found)
        tensors[f"{target}.lora_a"], tensors[f"{target}.lora_b"] = float32(a), float32(b)
        if gated:
            num_in = source.shape.linear_shape(found.site)[1]
            weight = source.ledger.take(f"{found.prefix}.gate.weight", 1, num_in)
            tensors[f"{target}.lora_gate.weight"] = float32(weight[0])
            tensors[f"{target}.lora_gate.bias"] = source.ledger.take(f"{found.prefix}.gate.bias", 1)
        if config.use_dora:
            scales[f"{target}.scale"] = _dora_scale(source, found, b @ a)
    if is_zero(values for name, values in tensors.items() if name.endswith("lora_b")):
        source.warn("zero_lora_b", "lora_B is zero everywhere: the LoRA was never trained")
    names = _site_names(places, source)
    alpha = float(config.r if gated else config.alpha)
    lora = build(Lora, rank=config.r, alpha=alpha, sites=names, gated=gated or None)
    parts = [Part(lora, tensors)]
    if scales:
        parts.append(Part(build(Ia3, output_sites=names, input_sites=()), scales))
    return parts


def _factors(
    config: LowRankConfig, source: Source, found: _Place
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return A [r, in] and B [out, r] of one place."""
    num_out, num_in = source.shape.linear_shape(found.site)
    take = source.ledger.take
    if config.vera_d is None and config.vera_b is None:
        a = take(f"{found.prefix}.lora_A", config.r, num_in)
        return a.astype(np.float64), take(f"{found.prefix}.lora_B", num_out, config.r).astype(float)
    shared = f"shared_parameters.{source.name}"
    vera_d = take(f"{found.prefix}.vera_D", config.r, config.r).astype(np.float64)
    vera_b = take(f"{found.prefix}.vera_B", num_out, num_out).astype(np.float64)
    a = take(f"{shared}.lora_A", config.r, num_in)
    return vera_d @ a, vera_b @ take(f"{shared}.lora_B", num_out, config.r)


def _dora_scale(source: Source, found: _Place, product: NDArray[np.float64]) -> NDArray[np.float32]:
    num_out, _ = source.shape.linear_shape(found.site)
    magnitude = source.ledger.take(f"{found.prefix}.m.weight", num_out, 1)[:, 0]
    norm = np.linalg.norm(source.weight_of(found.layer, found.site) + product, axis=1)
    if not norm.all():
        raise BadCheckpoint(f"{found.prefix}: a row of W + B A is zero, which DoRA divides by")
    return float32(magnitude / norm)
