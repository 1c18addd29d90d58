"""A task's level as a folder that PEFT loads: the way back, for kinds that PEFT has too.

What is exported is what an import of the folder finds: importing it again gives the same task.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from messages.task_event import TaskKind
from tasks.artifact import (
    HEAD_BIAS,
    HEAD_WEIGHT,
    HIDDEN_BIAS,
    HIDDEN_WEIGHT,
    Artifact,
    check_sha256,
    level_specs,
)
from tasks.artifact_writer import staging_folder
from tasks.description import HeadLayout, LevelDescription
from tasks.errors import ArtifactExists, BackboneMismatch, ExportRefused
from tasks.importers.backbone_tensors import BackboneTensors
from tasks.importers.model_heads import POOLER, head_layers
from tasks.importers.peft.export_kinds import Stored, export_pet
from tasks.safe_folder import SafeFolder
from tasks.weight_file import max_file_bytes, parse_tensors

_PROBLEMS: Mapping[TaskKind, str] = {
    "regression": "regression",
    "single_label": "single_label_classification",
    "multi_label": "multi_label_classification",
}

_TASK_TYPES: Mapping[TaskKind, str] = {
    "tagging": "TOKEN_CLS",
    "embedding": "FEATURE_EXTRACTION",
}


def export_peft(artifact: Artifact, level: int, backbone: BackboneTensors, folder: Path) -> None:
    """Write one level of a task as a PEFT checkpoint.

    Raises:
        ExportRefused: If PEFT has no place for what the level does.
        ArtifactExists: If the folder is there.
        BackboneMismatch: If the level stands on another backbone.
        ArtifactError: If the task cannot be read.
    """
    described = artifact.description.level(level)
    if described.backbone.digest != backbone.reference.digest:
        raise BackboneMismatch(
            f"level {level} stands on {described.backbone.name} {described.backbone.digest[:19]}, "
            f"not on {backbone.reference.name} {backbone.reference.digest[:19]}"
        )
    if folder.exists():
        raise ArtifactExists(f"{folder} is there already: choose another")
    stored = _read(artifact, described, backbone)
    exported = export_pet(described.pet, stored, backbone)
    head, saved = _head(artifact, described, stored, backbone)
    kind = artifact.description.kind
    # A model without a head is the base model itself, whose names have no prefix.
    prefix = "" if kind == "embedding" else f"{backbone.family.prefix}."
    tensors = {
        exported.root + (f"{prefix}{name}" if _is_of_base(name) else name): values
        for name, values in (exported.tensors | head).items()
        if name != "prompt_embeddings"
    }
    if "prompt_embeddings" in exported.tensors:
        tensors["prompt_embeddings"] = exported.tensors["prompt_embeddings"]
    config = exported.config | {
        "task_type": _TASK_TYPES.get(kind, "SEQ_CLS"),
        "base_model_name_or_path": described.backbone.name,
        "modules_to_save": saved or None,
        "inference_mode": True,
    }
    with staging_folder(folder.parent, f".{folder.name}-") as staging:
        (staging / "adapter_config.json").write_bytes(_json(config))
        (staging / "config.json").write_bytes(_json(_model_config(artifact, backbone)))
        contiguous = {name: np.ascontiguousarray(values) for name, values in tensors.items()}
        safetensors.numpy.save_file(contiguous, staging / "adapter_model.safetensors")
        staging.rename(folder)


def _read(
    artifact: Artifact, described: LevelDescription, backbone: BackboneTensors
) -> dict[str, NDArray[Any]]:
    """Return the level's stored tensors, which are those that the task pins."""
    specs = level_specs(described, artifact.description.num_outputs, backbone.shape)
    with SafeFolder(artifact.base, artifact.inner) as opened:
        raw = opened.read(described.file, max_file_bytes(specs))
    check_sha256(raw, described)
    return parse_tensors(raw, specs, described.file)


def _head(
    artifact: Artifact, described: LevelDescription, stored: Stored, backbone: BackboneTensors
) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """Return the head's tensors by module, and what PEFT calls the modules."""
    if artifact.description.kind == "embedding":
        if described.head != HeadLayout(output="none"):
            raise ExportRefused(
                "PEFT has no place for a layer behind the pooling: export it as `--format "
                "petstream`"
            )
        return {}, []
    is_tagging = artifact.description.kind == "tagging"
    hidden, activation, out = head_layers(backbone.family, is_tagging)
    layout = described.head
    fits = layout is None if hidden is None else (
        layout is not None and layout.activation == activation and described.pooling == "cls"
        and (layout.hidden == "own" or hidden == POOLER)
    )  # fmt: skip
    if not fits:
        raise ExportRefused(
            f"the head is not the one that transformers' {backbone.family.model_type} has: export "
            f"it as `--format petstream`"
        )
    tensors = {f"{out}.weight": stored[HEAD_WEIGHT], f"{out}.bias": stored[HEAD_BIAS]}
    if layout is not None and layout.hidden == "own":
        tensors[f"{hidden}.weight"] = stored[HIDDEN_WEIGHT]
        tensors[f"{hidden}.bias"] = stored[HIDDEN_BIAS]
    return tensors, sorted({name.partition(".")[0] for name in tensors})


def _model_config(artifact: Artifact, backbone: BackboneTensors) -> dict[str, Any]:
    """Return a `config.json` of the model with its head: labels and problem type stand there."""
    description = artifact.description
    if description.kind == "embedding":
        return backbone.config
    config = backbone.config | {
        "id2label": {str(number): label for number, label in enumerate(description.labels)},
        "label2id": {label: number for number, label in enumerate(description.labels)},
    }
    config.pop("architectures", None)
    if description.kind in _PROBLEMS:
        config["problem_type"] = _PROBLEMS[description.kind]
    return config


def _is_of_base(name: str) -> bool:
    return name.startswith(("encoder.", "embeddings.", "transformer.", POOLER))


def _json(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()
