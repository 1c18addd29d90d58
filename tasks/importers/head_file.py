"""A head in a file of its own, beside a checkpoint that has none."""

from pathlib import Path
from typing import Literal

from messages.task_event import TaskKind
from tasks.errors import HeadMissing
from tasks.importers.backbone_tensors import BackboneTensors
from tasks.importers.checkpoint import read_weight_file
from tasks.importers.imported import ImportedHead
from tasks.importers.model_heads import linear_of
from tasks.importers.peft.keys import PeftKeys
from tasks.importers.peft.parse import head_in


def head_keys(path: Path, backbone: BackboneTensors) -> PeftKeys:
    """Return a file's tensors by the layers of the head that they belong to.

    Raises:
        ImportRefused: If the file cannot be read.
    """
    return PeftKeys(read_weight_file(path), path.name, backbone.family)


def read_head(
    path: Path,
    backbone: BackboneTensors,
    *,
    kind: TaskKind | None,
    pooling: Literal["mean", "cls"] | None,
) -> ImportedHead:
    """Read a head.

    Args:
        path: Safetensors or a pickle, with the names of transformers' models or bare ones.
        backbone: What it stands on.
        kind: Of the task; None: told by its rows.
        pooling: The head is one layer on this; None: it is that of transformers' model.

    Raises:
        HeadMissing: If the file has none, does not say what it reads, or it reads another width.
        ImportRefused: If the file cannot be read.
    """
    keys = head_keys(path, backbone)
    is_tagging = kind == "tagging"
    if pooling is None and not keys.has("", "weight"):
        found = head_in(keys, backbone, is_tagging=is_tagging, kind=kind, ops_at={})
        if found is not None:
            return found
    module = next((m for m in ("", "classifier", "score") if keys.has(m, "weight")), None)
    if module is None:
        raise HeadMissing(f"{path} has no classifier.weight, score.weight or weight")
    if pooling is None and not is_tagging:
        raise HeadMissing(
            f"{path} does not say what its head reads: add `--pooling mean` or `--pooling cls`"
        )
    bias = keys.take(module, "bias", None) if keys.has(module, "bias") else None
    weight, bias = linear_of(keys.take(module, "weight", None, None), bias, module or path.name)
    if weight.shape[1] != backbone.shape.hidden_size:
        raise HeadMissing(
            f"{path}: its head reads {weight.shape[1]} features, the backbone has "
            f"{backbone.shape.hidden_size}"
        )
    return ImportedHead(
        weight=weight,
        bias=bias,
        layout=None,
        hidden_weight=None,
        hidden_bias=None,
        pooling="none" if is_tagging else pooling or "none",
        kind=kind or ("regression" if len(weight) == 1 else "single_label"),
        labels=None,
    )
