"""The heads of transformers' models, by family: which layers they have and what lies between."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from messages.task_event import TaskKind
from tasks.backbone_families import BackboneFamily
from tasks.description import HeadLayout
from tasks.errors import BadCheckpoint, HeadMissing
from tasks.importers.backbone_tensors import BackboneTensors
from tasks.importers.imported import ImportedHead
from tasks.importers.merge import Linear
from tasks.site_ops import Activation

POOLER = "pooler.dense"
"""BERT's layer between encoder and head, part of the base model."""
_TAGGING_OUT = "classifier"


@dataclass(frozen=True, slots=True)
class _Head:
    hidden: str
    activation: Activation
    out: str


_HEADS: Mapping[str, _Head] = {
    "bert": _Head(POOLER, "tanh", "classifier"),
    "roberta": _Head("classifier.dense", "tanh", "classifier.out_proj"),
    "electra": _Head("classifier.dense", "gelu", "classifier.out_proj"),
    "distilbert": _Head("pre_classifier", "relu", "classifier"),
    "mpnet": _Head("classifier.dense", "tanh", "classifier.out_proj"),
}


def head_modules(family: BackboneFamily) -> tuple[str, ...]:
    """Return the paths of the layers that a head of the family can have."""
    head = _HEADS[family.model_type]
    return tuple(dict.fromkeys((head.hidden, head.out, _TAGGING_OUT)))


def head_layers(family: BackboneFamily, is_tagging: bool) -> tuple[str | None, Activation, str]:
    """Return the layer before the last (None: there is none), what follows it, and the last."""
    head = _HEADS[family.model_type]
    return (None, "tanh", _TAGGING_OUT) if is_tagging else (head.hidden, head.activation, head.out)


def build_head(
    linears: Mapping[str, Linear],
    backbone: BackboneTensors,
    *,
    is_tagging: bool,
    kind: TaskKind | None,
) -> ImportedHead | None:
    """Return the head that the layers make, None if they have no last one.

    Args:
        linears: By module; BERT's pooler only if it is not the backbone's.
        backbone: Which must have a pooler where the head stands on it.
        is_tagging: Whether the head acts on tokens.
        kind: None: `regression` for one label, else `single_label`; `tagging` on tokens.

    Raises:
        HeadMissing: If the layer before the last is not there.
        BadCheckpoint: If the layers do not fit together.
    """
    spec = _HEADS[backbone.family.model_type]
    out = linears.get(_TAGGING_OUT if is_tagging else spec.out)
    if out is None:
        return None
    hidden = None if is_tagging else _hidden(spec, linears, backbone)
    layout = None
    features = backbone.shape.hidden_size
    if hidden is not None:
        num_features, num_in = hidden[0].shape
        _check(num_in == features, spec.hidden, hidden, features)
        layout = HeadLayout(
            hidden="own",
            features=None if num_features == features else num_features,
            activation=spec.activation,
        )
        features = num_features
    elif not is_tagging:
        layout = HeadLayout(hidden="pooler", activation=spec.activation)
    _check(out[0].shape[1] == features, spec.out, out, features)
    is_regression = len(out[0]) == 1
    found: TaskKind = "tagging" if is_tagging else "regression" if is_regression else "single_label"
    return ImportedHead(
        weight=out[0],
        bias=out[1],
        layout=layout,
        hidden_weight=None if hidden is None else hidden[0],
        hidden_bias=None if hidden is None else hidden[1],
        pooling="none" if is_tagging else "cls",
        kind=kind or found,
        labels=None,
    )


def linear_of(weight: NDArray[Any], bias: NDArray[Any] | None, name: str) -> Linear:
    """Return a layer of a head, without a bias one of zeros.

    Raises:
        BadCheckpoint: If the tensors are no linear layer.
    """
    if weight.ndim != 2 or not all(weight.shape):
        raise BadCheckpoint(f"{name}.weight has shape {list(weight.shape)}: expected a matrix")
    if bias is None:
        bias = np.zeros(len(weight), np.float32)
    if bias.shape != (len(weight),):
        raise BadCheckpoint(f"{name} has {len(weight)} rows and a bias of {list(bias.shape)}")
    return weight.astype(np.float32, copy=False), bias.astype(np.float32, copy=False)


def _hidden(spec: _Head, linears: Mapping[str, Linear], backbone: BackboneTensors) -> Linear | None:
    """Return the layer before the last, None where it is the backbone's."""
    found = linears.get(spec.hidden)
    if found is None and spec.hidden != POOLER:
        raise HeadMissing(
            f"the checkpoint has {spec.out} and not {spec.hidden} before it, which training left "
            f"as it was drawn at random: save it too (modules_to_save), or give `--head`"
        )
    if found is None and not backbone.has_pooler:
        raise HeadMissing(
            f"the head stands on a pooler, which {backbone.reference.name} does not have and the "
            f"checkpoint does not bring: save it too (modules_to_save), or give `--head`"
        )
    return found


def _check(fits: bool, module: str, linear: Linear, features: int) -> None:
    if not fits:
        raise BadCheckpoint(
            f"{module}.weight has shape {list(linear[0].shape)}, before it are {features} "
            f"features: the head is of another model"
        )
