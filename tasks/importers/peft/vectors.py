"""Biases and LayerNorms: BEFT's added biases, and whole new ones, of which the change is kept."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.backbone_families import EMBEDDING_NORM
from tasks.backbone_shape import LINEAR_SITES, Site
from tasks.errors import KindUnsupported
from tasks.importers.backbone_tensors import BackboneTensors
from tasks.importers.imported import Finding
from tasks.importers.model_heads import POOLER, head_modules
from tasks.importers.part import Part, build
from tasks.importers.peft.keys import PeftKeys, as_float32
from tasks.importers.peft.target import Taken, Target
from tasks.importers.site_patterns import names_of
from tasks.pets.bitfit import BitFit
from tasks.pets.layer_norm import LayerNormTuning
from tasks.pets.site_names import place
from tasks.site_ops import SiteOps

Place = tuple[int, Site]
FAR_AWAY = 1.0
"""Change over length, beyond which vectors are hardly those that training began with: unrelated
ones of one length give 1.4, trained biases can move by more than half of theirs."""


def take_beft(keys: PeftKeys, target: Target) -> tuple[list[Part], dict[str, SiteOps]]:
    """Take BEFT's biases, which are added to the layers' own.

    Raises:
        ImportRefused: If one does not fit or stands elsewhere.
    """
    modules = keys.modules("beft_bias")
    found = {}
    for module in modules:
        num_out, _ = target.linear_size(module)
        found[module] = as_float32(keys.take(module, "beft_bias", 1, num_out)[0])
    taken = Taken.at(target, modules, found)
    own = {module: SiteOps(bias=bias) for module, bias in taken.own.items()}
    if not taken.sites:
        return [], own
    return [_bitfit(dict(taken.sites), target)], own


def take_replaced(keys: PeftKeys, target: Target, backbone: BackboneTensors) -> list[Part]:
    """Take whole new biases of linear layers and whole new LayerNorms of the encoder.

    Raises:
        KindUnsupported: If a whole new weight of a linear layer is there.
        ImportRefused: If one does not fit.
    """
    biases: dict[Place, NDArray[Any]] = {}
    norms: dict[Place, dict[str, NDArray[Any]]] = {}
    of_head = (POOLER, *head_modules(target.family))
    for module in keys.modules("weight", "bias"):
        where = target.place(module)
        if where is None or module in of_head:
            continue
        if where[1] in LINEAR_SITES:
            if keys.has(module, "weight"):
                raise KindUnsupported(
                    f"{keys.key(module, 'weight')} is a whole new matrix beside the PET: merge "
                    f"the adapter, save the model and import that as a full fine-tune"
                )
            num_out, _ = target.shape.linear_shape(where[1])
            biases[where] = _change(keys, module, "bias", num_out, target, backbone)
            continue
        size = target.shape.norm_size(where[1])
        if keys.has(module, "weight"):
            bias = (
                _change(keys, module, "bias", size, target, backbone)
                if keys.has(module, "bias")
                else np.zeros(size, np.float32)
            )
            norms[where] = {
                "weight": _change(keys, module, "weight", size, target, backbone),
                "bias": bias,
            }
        else:
            biases[where] = _change(keys, module, "bias", size, target, backbone)
    parts = [_bitfit(biases, target)] if biases else []
    if norms:
        pet = build(LayerNormTuning, sites=names_of(norms, target.shape))
        tensors = {
            f"{place(*where)}.{name}": values
            for where, changes in norms.items()
            for name, values in changes.items()
        }
        parts.append(Part(pet, tensors))
    return parts


def distance_findings(
    keys: PeftKeys, target: Target, backbone: BackboneTensors, parts: list[Part]
) -> list[Finding]:
    """Say whether what was replaced is so far from the backbone's that it is another one."""
    changes = lengths = 0.0
    for part in parts:
        for name, values in part.tensors.items():
            site, _, tensor = name.rpartition(".")
            changes += float(np.square(values, dtype=np.float64).sum())
            own = backbone[f"{_module(site, target)}.{tensor}"]
            lengths += float(np.square(own, dtype=np.float64).sum())
    if not parts or changes <= FAR_AWAY**2 * lengths:
        return []
    message = (
        f"biases and norms differ from those of {backbone.reference.name} by "
        f"{(changes / max(lengths, 1e-30)) ** 0.5:.0%} of their length: it was most likely "
        f"trained on another backbone"
    )
    return [Finding("warning", "other_backbone", message)]


def _bitfit(biases: Mapping[Any, NDArray[Any]], target: Target) -> Part:
    pet = build(BitFit, sites=names_of(biases, target.shape))
    return Part(pet, {f"{place(*where)}.bias": values for where, values in biases.items()})


def _change(
    keys: PeftKeys,
    module: str,
    meaning: str,
    size: int,
    target: Target,
    backbone: BackboneTensors,
) -> NDArray[np.float32]:
    return as_float32(keys.take(module, meaning, size) - backbone[f"{module}.{meaning}"])


def _module(site: str, target: Target) -> str:
    if site == "embeddings":
        return EMBEDDING_NORM
    _, layer, name = site.split(".")
    return target.family.module_path(int(layer), name)  # type: ignore[arg-type]  # of our own
