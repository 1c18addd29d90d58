"""A whole fine-tuned model of transformers: what differs from the backbone becomes the PET."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from messages.task_event import TaskKind
from tasks.backbone_families import (
    EMBEDDING_NORM,
    EMBEDDING_PROJECTION,
    POSITIONS,
    TOKEN_TYPES,
    WORDS,
)
from tasks.backbone_shape import (
    LINEAR_SITES,
    NORM_SITES,
    LinearSite,
    Site,
    shape_from_config,
)
from tasks.errors import BadCheckpoint, KindUnsupported, WrongBackbone
from tasks.importers.backbone_tensors import BackboneTensors
from tasks.importers.checkpoint import Checkpoint
from tasks.importers.full_model import FullModel, full_model
from tasks.importers.imported import Finding, ImportedHead, ImportedPet
from tasks.importers.merge import Linear
from tasks.importers.model_heads import POOLER, build_head, head_modules, linear_of
from tasks.importers.part import Part, build, combine
from tasks.importers.site_patterns import names_of
from tasks.importers.weight_changes import DeltaOptions, Kept, keep
from tasks.pets.bitfit import BitFit
from tasks.pets.embedding_delta import EmbeddingDelta
from tasks.pets.layer_norm import LayerNormTuning
from tasks.pets.site_names import place

_BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")
_SAME_IN_BOTH = ("hidden_act", "activation", "position_embedding_type")
FAR_AWAY = 0.5
"""Change over length, from which on the backbone is hardly the one that training began with."""


def parse_full_finetune(
    checkpoint: Checkpoint,
    backbone: BackboneTensors,
    kind: TaskKind | None,
    options: DeltaOptions,
) -> ImportedPet:
    """Turn a whole model into a PET for the backbone; of an embedding no head is read.

    Raises:
        ImportRefused: One of its subclasses, by what cannot be taken over.
    """
    config = checkpoint.documents["config.json"]
    _check_config(config, backbone)
    source, tensors = checkpoint.weights()
    model = full_model(tensors, source, backbone.family.prefix)
    kept = _keep_matrices(model, backbone, options)
    parts = [] if kept is None else [kept.part]
    parts += _vectors(model, backbone)
    parts += _embeddings(model, backbone)
    head = None if kind == "embedding" else _head(model, backbone, config, kind)
    whole = combine(parts, backbone.shape)
    _check_rest(model, backbone)
    unread = (f"{POOLER}.weight", f"{POOLER}.bias") if kind == "embedding" else ()
    known = {model.keys.get(name) for name in (*_BUFFERS, *backbone, *unread)}
    findings = [
        *checkpoint.findings,
        *([] if kept is None else [_error_finding(kept)]),
        *_distance_findings(model, backbone),
        *(
            Finding("warning", "unused_key", f"{source}: {key} has no place in the task: left out")
            for key in tensors
            if key not in model.used and key not in known
        ),
    ]
    if not parts:
        message = "the encoder is the backbone, unchanged: the task is its head alone"
        findings.append(Finding("note", "changes_nothing", message))
    base, version = config.get("_name_or_path"), config.get("transformers_version")
    return ImportedPet(
        origin="transformers",
        library_version=version if isinstance(version, str) else None,
        base_model=base if isinstance(base, str) and base else None,
        pet=whole.pet,
        tensors=whole.tensors,
        head=head,
        used_keys=frozenset(model.used),
        findings=tuple(findings),
    )


def _check_rest(model: FullModel, backbone: BackboneTensors) -> None:
    """Refuse a change of the base model's that tasks have no place for (MPNet's distances)."""
    for name, key in model.keys.items():
        if key in model.used or name in _BUFFERS or name not in backbone:
            continue
        if not name.startswith(POOLER) and model.change(name, backbone).any():
            raise KindUnsupported(
                f"{model.source}: {key} was trained, which all tasks of the backbone share"
            )


def _check_config(config: dict[str, Any], backbone: BackboneTensors) -> None:
    own = backbone.config
    name = backbone.reference.name
    if config.get("model_type") != own.get("model_type"):
        raise WrongBackbone(
            f"the checkpoint is a {str(config.get('model_type'))[:50]}, {name} a "
            f"{own.get('model_type')}: choose another backbone with `--backbone`"
        )
    try:
        shape = shape_from_config(config)
    except (ValueError, TypeError) as error:
        raise BadCheckpoint(f"config.json: {error}") from error
    if shape != backbone.shape:
        raise WrongBackbone(f"the checkpoint has {shape}, {name} {backbone.shape}")
    for key in _SAME_IN_BOTH:
        if config.get(key, own.get(key)) != own.get(key, config.get(key)):
            raise WrongBackbone(
                f"config.json: {key} is {str(config.get(key))[:50]}, that of {name} {own.get(key)}"
            )


def _keep_matrices(
    model: FullModel, backbone: BackboneTensors, options: DeltaOptions
) -> Kept | None:
    changes: dict[tuple[int, LinearSite], NDArray[np.float32]] = {}
    for layer in range(backbone.shape.num_layers):
        for site in LINEAR_SITES:
            name = f"{backbone.family.module_path(layer, site)}.weight"
            change = model.change(name, backbone)
            if change.any():
                changes[layer, site] = change
    return keep(changes, options, backbone.shape) if changes else None


def _vectors(model: FullModel, backbone: BackboneTensors) -> list[Part]:
    biases: dict[tuple[int, Site], NDArray[Any]] = {}
    norms: dict[tuple[int, Site], tuple[NDArray[Any], NDArray[Any]]] = {}
    modules: dict[tuple[int, Site], str] = {
        (layer, site): backbone.family.module_path(layer, site)
        for layer in range(backbone.shape.num_layers)
        for site in (*LINEAR_SITES, *NORM_SITES)
    }
    modules[0, "embeddings"] = EMBEDDING_NORM
    for where, module in modules.items():
        _, site = where
        bias = model.change(f"{module}.bias", backbone)
        if site in LINEAR_SITES:
            if bias.any():
                biases[where] = bias
            continue
        weight = model.change(f"{module}.weight", backbone)
        if weight.any():
            norms[where] = weight, bias
        elif bias.any():
            biases[where] = bias
    parts = []
    if biases:
        pet = build(BitFit, sites=names_of(biases, backbone.shape))
        parts.append(Part(pet, {f"{place(*w)}.bias": values for w, values in biases.items()}))
    if norms:
        tensors: dict[str, NDArray[Any]] = {}
        for w, (weight, bias) in norms.items():
            tensors |= {f"{place(*w)}.weight": weight, f"{place(*w)}.bias": bias}
        sites = names_of(norms, backbone.shape)
        parts.append(Part(build(LayerNormTuning, sites=sites), tensors))
    return parts


def _embeddings(model: FullModel, backbone: BackboneTensors) -> list[Part]:
    words = model.change(f"{WORDS}.weight", backbone)
    tensors: dict[str, NDArray[Any]] = {"embeddings.words": words}
    fields: dict[str, int] = {}
    for module, name, size in (
        (POSITIONS, "embeddings.positions", "num_positions"),
        (TOKEN_TYPES, "embeddings.types", "num_types"),
    ):
        if f"{module}.weight" not in backbone:
            continue
        change = model.change(f"{module}.weight", backbone)
        if module == POSITIONS:
            change = change[backbone.first_position :]
        if change.any():
            tensors[name], fields[size] = change, len(change)
    if f"{EMBEDDING_PROJECTION}.weight" in backbone:
        projection = {
            f"embeddings.projection.{name}": model.change(
                f"{EMBEDDING_PROJECTION}.{name}", backbone
            )
            for name in ("weight", "bias")
        }
        if any(change.any() for change in projection.values()):
            tensors |= projection
            fields["has_projection"] = True
    if not words.any() and not fields:
        return []
    return [Part(build(EmbeddingDelta, **fields), tensors)]


def _head(
    model: FullModel, backbone: BackboneTensors, config: dict[str, Any], kind: TaskKind | None
) -> ImportedHead | None:
    classes = config.get("architectures")
    name = classes[0] if isinstance(classes, list) and classes else ""
    is_tagging = kind == "tagging" or (
        kind is None and isinstance(name, str) and name.endswith("ForTokenClassification")
    )
    linears: dict[str, Linear] = {}
    for module in dict.fromkeys((POOLER, *head_modules(backbone.family))):
        if f"{module}.weight" not in model.keys:
            continue
        bias = model.take(f"{module}.bias") if f"{module}.bias" in model.keys else None
        linears[module] = linear_of(model.take(f"{module}.weight"), bias, module)
    pooler = linears.get(POOLER)
    if pooler is not None and backbone.has_pooler:
        own = (backbone[f"{POOLER}.weight"], backbone[f"{POOLER}.bias"])
        if all(np.array_equal(a, b) for a, b in zip(pooler, own, strict=True)):
            del linears[POOLER]
    return build_head(linears, backbone, is_tagging=is_tagging, kind=kind)


def _error_finding(kept: Kept) -> Finding:
    worst = max(kept.errors, key=lambda where: kept.errors[where])
    mean = float(np.mean(list(kept.errors.values())))
    message = (
        f"{len(kept.errors)} changed matrices are kept {_KEPT_AS[kept.method]}: of each change "
        f"{mean:.2%} is lost on average, at most {kept.errors[worst]:.2%} ({place(*worst)})"
    )
    severity: Any = "warning" if kept.errors[worst] > _LOSES_MUCH else "note"
    return Finding(severity, "delta_error", message)


_LOSES_MUCH = 0.05
_KEPT_AS = {"sparse": "sparse", "low-rank": "as matrices of low rank", "dense": "whole"}


def _distance_findings(model: FullModel, backbone: BackboneTensors) -> list[Finding]:
    """Say whether the weights are so far from the backbone's that it is another one."""
    change = length = 0.0
    for layer in range(backbone.shape.num_layers):
        name = f"{backbone.family.module_path(layer, 'query')}.weight"
        change += float(np.square(model.change(name, backbone)).sum())
        length += float(np.square(backbone[name]).sum())
    share = (change / max(length, 1e-30)) ** 0.5
    if share <= FAR_AWAY:
        return []
    message = (
        f"its weights differ from those of {backbone.reference.name} "
        f"({backbone.reference.digest[:19]}) by {share:.0%} of their length: it was most likely "
        f"trained on another backbone"
    )
    return [Finding("warning", "other_backbone", message)]
