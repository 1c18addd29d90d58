"""LoRA, DoRA, AdaLoRA and VeRA: products of two small matrices beside a weight."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.backbone_shape import LinearSite
from tasks.errors import KindUnsupported
from tasks.importers.imported import Finding
from tasks.importers.part import Part, build
from tasks.importers.peft.config import PeftConfig, matching_key
from tasks.importers.peft.keys import PeftKeys, as_float32
from tasks.importers.peft.target import Taken, Target
from tasks.importers.site_patterns import most_common, names_of, pattern_of
from tasks.pets.adalora import AdaLora
from tasks.pets.dora import Dora
from tasks.pets.lora import Lora
from tasks.pets.low_rank import ScaledLowRankPet
from tasks.site_ops import LowRank, SiteOps

_DEFAULT_ALPHA, _DEFAULT_ADALORA_RANK = 8, 12
"""What PEFT takes where a configuration does not say."""
HARDLY_TRAINED = 1e-3
"""Largest value of B: trained ones reach about 0.01 and start from 0."""

_Sites = Mapping[tuple[int, LinearSite], "Factors"]


@dataclass(frozen=True, slots=True, eq=False)
class Factors:
    """A low-rank change of one linear layer."""

    a: NDArray[np.float32]
    """Shape (rank, in)."""
    b: NDArray[np.float32]
    """Shape (out, rank)."""
    alpha: float
    bias: NDArray[np.float32] | None = None
    """Shape (out,), scaled with the product."""
    magnitude: NDArray[np.float32] | None = None
    """Shape (out,)."""
    values: NDArray[np.float32] | None = None
    """Shape (rank,): AdaLoRA's singular values."""

    @property
    def rank(self) -> int:
        """How many rows A has."""
        return len(self.a)

    def ops(self, scale: float) -> SiteOps:
        """Return what it does to the layer."""
        a = self.a if self.values is None else as_float32(self.values[:, None] * self.a)
        bias = None if self.bias is None else as_float32(scale * self.bias)
        return SiteOps(low_rank=LowRank(a, self.b, scale), bias=bias, magnitude=self.magnitude)


def take_lora(
    keys: PeftKeys, config: PeftConfig, target: Target
) -> tuple[list[Part], dict[str, SiteOps]]:
    """Take LoRA's and DoRA's factors.

    Returns:
        The PETs, and the ops at layers that become the task's own.

    Raises:
        ImportRefused: If factors are not whole, do not fit or stand elsewhere.
    """
    modules = keys.modules("lora_A.weight", "lora_B.weight", "lora_magnitude_vector")
    patterns = config.pattern("alpha_pattern")
    default = config.number("lora_alpha", _DEFAULT_ALPHA)
    found = {}
    for module in modules:
        pattern = matching_key(patterns, keys.path(module))
        alpha = float(default if pattern is None else patterns[pattern])
        found[module] = _take_factors(keys, target, module, alpha)
    taken = Taken.at(target, modules, found)
    is_stabilized = bool(config.has("use_rslora"))
    parts = []
    for kind in (Lora, Dora):
        of_kind = {
            place: factors
            for place, factors in taken.sites.items()
            if (factors.magnitude is not None) == (kind is Dora)
        }
        for has_bias in (False, True):
            sites = {p: f for p, f in of_kind.items() if (f.bias is not None) == has_bias}
            if sites:
                parts.append(_scaled_part(kind, sites, target, float(default), is_stabilized))
    own = {
        module: factors.ops(
            factors.alpha / (math.sqrt(factors.rank) if is_stabilized else factors.rank)
        )
        for module, factors in taken.own.items()
    }
    return parts, own


def take_adalora(
    keys: PeftKeys, config: PeftConfig, target: Target
) -> tuple[list[Part], dict[str, SiteOps]]:
    """Take AdaLoRA's factors and singular values; see `take_lora`."""
    modules = [m for m in keys.modules("lora_E") if 0 not in keys.shape(m, "lora_E")]
    rank = int(config.number("init_r", _DEFAULT_ADALORA_RANK))
    alpha = float(config.number("lora_alpha", _DEFAULT_ALPHA))
    # The library scales by the rank itself where alpha is none.
    alpha = alpha if alpha > 0 else float(rank)
    found = {}
    for module in modules:
        values = keys.take(module, "lora_E", None, 1)[:, 0]
        b = keys.take(module, "lora_B", _num_out(target, module), len(values))
        a = keys.take(module, "lora_A", len(values), _num_in(target, module))
        found[module] = Factors(a, b, alpha, values=as_float32(values))
    taken = Taken.at(target, modules, found)
    if not taken.sites:
        pets = []
    else:
        pet = build(
            AdaLora,
            rank=rank,
            alpha=alpha,
            sites=names_of(taken.sites, target.shape),
            rank_pattern=pattern_of(
                {place: f.rank for place, f in taken.sites.items()}, rank, target.shape
            ),
        )
        tensors = _tensors(taken.sites)
        tensors |= {
            f"layers.{i}.{site}.lora_e": factors.values  # type: ignore[misc]  # set above
            for (i, site), factors in taken.sites.items()
        }
        pets = [Part(pet, tensors)]
    return pets, {module: f.ops(alpha / (rank + 1e-5)) for module, f in taken.own.items()}


def take_vera(keys: PeftKeys, target: Target) -> tuple[list[Part], dict[str, SiteOps]]:
    """Take VeRA's vectors, multiplied into the two matrices that all places share.

    Raises:
        KindUnsupported: If the shared matrices are not in the file.
        ImportRefused: As `take_lora`.
    """
    modules = keys.modules("vera_lambda_b", "vera_lambda_d")
    if not modules:
        return [], {}
    if not (keys.has("", "vera_A") and keys.has("", "vera_B")):
        raise KindUnsupported(
            "VERA was saved without its shared matrices (save_projection: false), which only "
            "torch's random numbers of that machine hold: save it again with save_projection"
        )
    shared_a = keys.take("", "vera_A", None, None)
    rank = len(shared_a)
    shared_b = keys.take("", "vera_B", None, rank)
    found = {}
    for module in modules:
        num_out, num_in = _num_out(target, module), _num_in(target, module)
        outer = keys.take(module, "vera_lambda_b", num_out)
        inner = keys.take(module, "vera_lambda_d", rank)
        found[module] = Factors(
            as_float32(inner[:, None] * shared_a[:, :num_in]),
            as_float32(outer[:, None] * shared_b[:num_out]),
            alpha=float(rank),
        )
    taken = Taken.at(target, modules, found)
    parts = [_scaled_part(Lora, taken.sites, target, float(rank), False)] if taken.sites else []
    return parts, {module: factors.ops(1.0) for module, factors in taken.own.items()}


def low_rank_findings(parts: list[Part]) -> list[Finding]:
    """Say whether the factors look as if they had hardly been trained."""
    up = [v for part in parts for name, v in part.tensors.items() if name.endswith(".lora_b")]
    largest = max((float(np.abs(values).max()) for values in up), default=1.0)
    if largest == 0:
        message = "every B is zero: the adapter was never trained and changes nothing"
        return [Finding("warning", "zero_lora_b", message)]
    if largest < HARDLY_TRAINED:
        message = (
            f"the largest value of every B is {largest:.1e}, trained ones have about 0.01: it was "
            f"hardly trained"
        )
        return [Finding("warning", "hardly_trained", message)]
    zero = sum(not values.any() for values in up)
    if zero:
        message = f"{zero} of {len(up)} B are zero: those places change nothing"
        return [Finding("warning", "zero_lora_b", message)]
    return []


def _take_factors(keys: PeftKeys, target: Target, module: str, alpha: float) -> Factors:
    a = keys.take(module, "lora_A.weight", None, _num_in(target, module))
    num_out = _num_out(target, module)
    b = keys.take(module, "lora_B.weight", num_out, len(a))
    bias = magnitude = None
    if keys.has(module, "lora_B.bias"):
        bias = keys.take(module, "lora_B.bias", num_out)
    if keys.has(module, "lora_magnitude_vector"):
        magnitude = keys.take(module, "lora_magnitude_vector", num_out)
    if bias is not None and magnitude is not None:
        raise KindUnsupported(f"{module} has a DoRA with lora_bias, which PEFT does not compute")
    return Factors(a, b, alpha, bias, magnitude)


def _scaled_part(
    kind: type[ScaledLowRankPet], sites: _Sites, target: Target, alpha: float, stabilized: bool
) -> Part:
    rank = most_common(factors.rank for factors in sites.values())
    alphas = {place: factors.alpha for place, factors in sites.items()}
    if alpha not in alphas.values():
        alpha = most_common(alphas.values())
    pet = build(
        kind,
        rank=rank,
        alpha=alpha,
        sites=names_of(sites, target.shape),
        rank_pattern=pattern_of({p: f.rank for p, f in sites.items()}, rank, target.shape),
        alpha_pattern=pattern_of(alphas, alpha, target.shape),
        rank_stabilized=True if stabilized else None,
        has_bias=True if any(f.bias is not None for f in sites.values()) else None,
    )
    return Part(pet, _tensors(sites))


def _tensors(sites: _Sites) -> dict[str, NDArray[Any]]:
    tensors: dict[str, NDArray[Any]] = {}
    for (layer, site), factors in sites.items():
        prefix = f"layers.{layer}.{site}"
        tensors[f"{prefix}.lora_a"] = factors.a
        tensors[f"{prefix}.lora_b"] = factors.b
        if factors.bias is not None:
            tensors[f"{prefix}.lora_bias"] = factors.bias
        if factors.magnitude is not None:
            tensors[f"{prefix}.magnitude"] = factors.magnitude
    return tensors


def _num_out(target: Target, module: str) -> int | None:
    return target.linear_size(module)[0]


def _num_in(target: Target, module: str) -> int | None:
    return target.linear_size(module)[1]
