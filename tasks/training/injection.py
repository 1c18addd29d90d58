"""Puts a PET's trainable ops into a frozen encoder and reads them out again.

`inject` builds what a PET kind trains, `dense_tensors` returns it in the dense form of
`tasks.pets`, and `load_weights` puts an artifact's ops back, which gives the dense model that an
artifact stands for.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel

from tasks.backbone_families import FAMILIES
from tasks.backbone_shape import LINEAR_SITES, NORM_SITES, LinearSite, NormSite
from tasks.pets.adapter import Adapter
from tasks.pets.bitfit import BitFit
from tasks.pets.diff import Diff
from tasks.pets.ia3 import Ia3
from tasks.pets.lora import Lora
from tasks.pets.mask import Mask
from tasks.pets.pet import Pet
from tasks.site_ops import PetWeights, SiteOps
from tasks.training.pet_sites import Bottleneck, PetLinear, PetNorm, ones, zeros
from tasks.training.weight_changes import PrunableDelta, ThresholdMask


@runtime_checkable
class Injectable(Protocol):
    """A PET kind of another distribution that `petstream train` can train."""

    def inject(self, sites: "PetSites", /) -> None:
        """Give the sites trainable ops that change nothing yet."""


@dataclass(frozen=True, slots=True)
class PetSites:
    """The wrapped modules of an encoder."""

    linear: dict[tuple[int, LinearSite], PetLinear]
    norm: dict[tuple[int, NormSite], PetNorm]

    def weight_changes(self) -> list[nn.Module]:
        """Return the changes of whole matrices; only mask and diff have them."""
        changes = (site.weight_change for site in self.linear.values())
        return [change for change in changes if change is not None]


def wrap_sites(encoder: PreTrainedModel) -> PetSites:
    """Replace each site's module by one that can hold ops; the encoder computes as before."""
    linear: dict[tuple[int, LinearSite], PetLinear] = {}
    norm: dict[tuple[int, NormSite], PetNorm] = {}
    family = FAMILIES[encoder.config.model_type]
    for index in range(encoder.config.num_hidden_layers):
        for site in LINEAR_SITES:
            path = family.module_path(index, site)
            linear[index, site] = PetLinear(encoder.get_submodule(path))
            encoder.set_submodule(path, linear[index, site])
        for norm_site in NORM_SITES:
            path = family.module_path(index, norm_site)
            norm[index, norm_site] = PetNorm(encoder.get_submodule(path))
            encoder.set_submodule(path, norm[index, norm_site])
    return PetSites(linear, norm)


def inject(sites: PetSites, pet: Pet) -> None:
    """Create the trainable ops of a PET kind; the encoder computes as before until they move.

    Raises:
        TypeError: If there is no recipe for the kind.
    """
    builder = TRAINABLE.get(type(pet))
    if builder is not None:
        builder(sites, pet)
    elif isinstance(pet, Injectable):
        pet.inject(sites)
    else:
        raise TypeError(f"no training recipe for PET kind {pet.kind}")


def dense_tensors(sites: PetSites) -> dict[str, NDArray[Any]]:
    """Return the trained ops in the dense form that `Pet.encode` takes."""
    tensors: dict[str, NDArray[Any]] = {}
    for (index, site), linear in sites.linear.items():
        for name, tensor in _linear_tensors(linear).items():
            tensors[f"layers.{index}.{site}.{name}"] = tensor.detach().numpy()
    for (index, norm_site), norm in sites.norm.items():
        for name, parameter in (("weight", norm.weight), ("bias", norm.bias)):
            if parameter is not None:
                tensors[f"layers.{index}.{norm_site}.{name}"] = parameter.detach().numpy()
    return tensors


def load_weights(sites: PetSites, weights: PetWeights) -> None:
    """Put an artifact's ops into freshly wrapped sites.

    Raises:
        TypeError: If the artifact is of a kind that has no training recipe.
    """
    if weights.kind not in {kind.model_fields["kind"].default for kind in TRAINABLE}:
        raise TypeError(f"there is no dense model of PET kind {weights.kind}: the engine runs it")
    for (index, site), ops in weights.sites.items():
        if site == "attention_norm" or site == "ffn_norm":
            _load_norm(sites.norm[index, site], ops)
        elif site != "attention" and site != "embeddings":
            _load_linear(sites.linear[index, site], ops)


def _inject_lora(sites: PetSites, pet: Lora) -> None:
    for (layer, site), linear in sites.linear.items():
        if site not in pet.sites and f"{layer}.{site}" not in pet.sites:
            continue
        num_out, num_in = linear.weight.shape
        rank = pet.rank_at(layer, site)
        linear.lora_a = nn.Parameter(torch.empty(rank, num_in))
        nn.init.kaiming_uniform_(linear.lora_a, a=5**0.5)
        linear.lora_b = zeros(num_out, rank)
        linear.lora_scale = pet.scale_at(layer, site)


def _inject_ia3(sites: PetSites, pet: Ia3) -> None:
    for (_, site), linear in sites.linear.items():
        if site in ("key", "value"):
            linear.output_scale = ones(linear.weight.shape[0])
        elif site == "ffn_output":
            linear.input_scale = ones(linear.weight.shape[1])


def _inject_bitfit(sites: PetSites, pet: BitFit) -> None:
    for linear in sites.linear.values():
        linear.bias = zeros(linear.weight.shape[0])
    for norm in sites.norm.values():
        norm.bias = zeros(*norm.shared_bias.shape)


def _inject_adapter(sites: PetSites, pet: Adapter) -> None:
    for (index, site), linear in sites.linear.items():
        if site == "ffn_output" and pet.placement != "attention":
            norm = sites.norm[index, "ffn_norm"]
        elif site == "attention_output" and pet.placement != "pfeiffer":
            norm = sites.norm[index, "attention_norm"]
        else:
            continue
        linear.adapter = Bottleneck(linear.weight.shape[0], pet.bottleneck, pet.activation)
        norm.weight = zeros(*norm.shared_weight.shape)
        norm.bias = zeros(*norm.shared_bias.shape)


def _inject_mask(sites: PetSites, pet: Mask) -> None:
    for linear in sites.linear.values():
        linear.weight_change = ThresholdMask(linear.weight)


def _inject_diff(sites: PetSites, pet: Diff) -> None:
    for linear in sites.linear.values():
        linear.weight_change = PrunableDelta(linear.weight)
        linear.bias = zeros(linear.weight.shape[0])
    for norm in sites.norm.values():
        norm.weight = zeros(*norm.shared_weight.shape)
        norm.bias = zeros(*norm.shared_bias.shape)


TRAINABLE: dict[type[Pet], Callable[[PetSites, Any], None]] = {
    Adapter: _inject_adapter,
    BitFit: _inject_bitfit,
    Diff: _inject_diff,
    Ia3: _inject_ia3,
    Lora: _inject_lora,
    Mask: _inject_mask,
}


def _linear_tensors(linear: PetLinear) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor | None] = {
        "bias": linear.bias,
        "lora_a": linear.lora_a,
        "lora_b": linear.lora_b,
        "scale": linear.output_scale if linear.input_scale is None else linear.input_scale,
    }
    change = linear.weight_change
    if isinstance(change, ThresholdMask):
        tensors["dropped"] = change.dropped()
    elif isinstance(change, PrunableDelta):
        tensors["delta"] = change.delta
    if isinstance(linear.adapter, Bottleneck):
        for name in ("down", "up"):
            projection = getattr(linear.adapter, name)
            tensors[f"adapter_{name}.weight"] = projection.weight
            tensors[f"adapter_{name}.bias"] = projection.bias
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


class _FixedWeight(nn.Module):
    """Stands for the merged weight W + delta of a loaded artifact."""

    merged: torch.Tensor

    def __init__(self, merged: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("merged", merged, persistent=False)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return self.merged


def _load_linear(linear: PetLinear, ops: SiteOps) -> None:
    linear.bias = _parameter(ops.bias)
    linear.input_scale = _parameter(ops.input_scale)
    linear.output_scale = _parameter(ops.output_scale)
    if ops.low_rank is not None:
        linear.lora_a = _parameter(ops.low_rank.a)
        linear.lora_b = _parameter(ops.low_rank.b)
        linear.lora_scale = ops.low_rank.scale
    if ops.sparse is not None:
        merged = linear.weight.clone()
        positions = torch.from_numpy(ops.sparse.flat_indices.astype(np.int64))
        if ops.sparse.values is None:
            merged.view(-1)[positions] = 0.0
        else:
            merged.view(-1)[positions] += torch.from_numpy(ops.sparse.values.copy())
        linear.weight_change = _FixedWeight(merged)
    if ops.adapter is not None:
        found = ops.adapter
        # Only Compacter has factors in their place, which no recipe trains.
        assert isinstance(found.down_weight, np.ndarray)
        assert isinstance(found.up_weight, np.ndarray)
        bottleneck, hidden = found.down_weight.shape
        adapter = Bottleneck(hidden, bottleneck, found.activation)
        state = {
            "down.weight": found.down_weight,
            "down.bias": found.down_bias,
            "up.weight": found.up_weight,
            "up.bias": found.up_bias,
        }
        adapter.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in state.items()})
        linear.adapter = adapter


def _load_norm(norm: PetNorm, ops: SiteOps) -> None:
    norm.weight = _parameter(ops.norm_weight)
    norm.bias = _parameter(ops.norm_bias)


def _parameter(values: NDArray[np.float32] | None) -> nn.Parameter | None:
    return None if values is None else nn.Parameter(torch.from_numpy(values.copy()))
