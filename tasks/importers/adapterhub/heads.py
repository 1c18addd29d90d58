"""`head_config.json`: heads of the library, and of transformers' classes that it saves as well.

A head of the library is a stack of dropout, linear layer and activation, counted through
(`PredictionHead.build`); its last layer has no activation. Linear layers without an activation
between them are one. Classification reads the first position, or the backbone's pooler.
"""

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from messages.task_event import TaskKind
from tasks.description import HeadLayout
from tasks.errors import BadCheckpoint, KindUnsupported
from tasks.importers.activations import activation_of
from tasks.importers.imported import Finding, ImportedHead
from tasks.importers.ledger import Ledger
from tasks.importers.rounding import float32
from tasks.importers.sources import BackboneWeights
from tasks.importers.static_heads import (
    HeadUse,
    check_pooler,
    kind_of,
    own_layer,
    take_linear,
    take_static_head,
)
from tasks.importers.validation import validated

_USES: Mapping[str, HeadUse] = {
    "classification": "classification",
    "multilabel_classification": "classification",
    "tagging": "tagging",
}
_REFUSED = {
    "multiple_choice": "it compares several texts with each other",
    "question_answering": "it marks a span",
    "dependency_parsing": "it relates words to each other",
}
_Labels = dict[str, Annotated[int, Field(ge=0)]] | None
_Linear = tuple[NDArray[np.float32], NDArray[np.float32]]


class _HeadConfig(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    head_type: str
    layers: Annotated[int, Field(ge=1, le=8)] = 1
    activation_function: str | None = None
    use_pooler: bool = False
    bias: bool = True
    num_labels: Annotated[int, Field(ge=1)] | None = None
    label2id: _Labels = None


class _HeadDocument(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    config: dict[str, Any] | None = None
    """None: a class of transformers, which has one head of a fixed form."""
    name: str | None = None
    model_class: str | None = None
    label2id: _Labels = None


def import_head(
    document: object, ledger: Ledger, backbone: BackboneWeights, findings: list[Finding]
) -> ImportedHead:
    """Take the head that `head_config.json` describes.

    Args:
        document: `head_config.json`.
        ledger: Names as in the head's file.
        backbone: Where a pooler must be if the head uses it.
        findings: What is to be told is appended.

    Raises:
        BadCheckpoint: If the document is not of the library's form.
        KindUnsupported: If the head is of another type, or deeper than heads here.
        KeyMissing, BadCheckpoint: As `Ledger`.
    """
    read = validated(_HeadDocument, document, "head_config.json")
    if read.config is None:
        return _static(read, ledger, backbone, findings)
    config = validated(_HeadConfig, read.config, "head_config.json.config")
    use = _USES.get(config.head_type)
    if use is None:
        reason = _REFUSED.get(config.head_type, "it is none that tasks have")
        raise KindUnsupported(f"head {config.head_type[:50]!r} is not imported: {reason}")
    layers = _layers(config, read.name or "", ledger)
    weight, bias = layers[-1]
    if config.num_labels is not None and len(weight) != config.num_labels:
        raise BadCheckpoint(
            f"the head's last layer has {len(weight)} rows for {config.num_labels} labels: save "
            f"the checkpoint again from the library"
        )
    hidden = layers[0] if len(layers) == 2 else None
    kind: TaskKind = kind_of(use, len(weight))
    if config.head_type == "multilabel_classification":
        kind = "multi_label"
    return ImportedHead(
        weight=weight,
        bias=bias,
        layout=_layout(config, hidden, backbone),
        hidden_weight=None if hidden is None else hidden[0],
        hidden_bias=None if hidden is None else hidden[1],
        pooling="none" if use == "tagging" else "cls",
        kind=kind,
        labels=_labels(config.label2id, len(weight), findings),
    )


def _static(
    read: _HeadDocument, ledger: Ledger, backbone: BackboneWeights, findings: list[Finding]
) -> ImportedHead:
    if read.model_class is None:
        raise BadCheckpoint("head_config.json has neither config nor model_class")
    head = take_static_head(read.model_class, ledger, backbone)
    if head.kind == "single_label":
        message = (
            f"{read.model_class} does not say whether a text has one label or several: taken to "
            f"be one"
        )
        findings.append(Finding("note", "assumed_kind", message))
    size = 0 if head.weight is None else len(head.weight)
    return replace(head, labels=_labels(read.label2id, size, findings))


def _layers(config: _HeadConfig, name: str, ledger: Ledger) -> list[_Linear]:
    """Take the linear layers, and multiply out those without an activation between them."""
    step = 3 if config.activation_function else 2
    taken = [
        take_linear(
            ledger,
            f"heads.{name}.{1 + number * step}",
            has_bias=config.bias or number < config.layers - 1,
        )
        for number in range(config.layers)
    ]
    for (before, _), (after, _) in pairwise(taken):
        if after.shape[1] != len(before):
            raise BadCheckpoint(
                f"a layer of the head has {len(before)} outputs, the next {after.shape[1]} inputs: "
                f"save the checkpoint again from the library"
            )
    if not config.activation_function:
        while len(taken) > 1:
            taken[:2] = [_product(*taken[:2])]
    depth = len(taken) + config.use_pooler
    if depth > 2:
        raise KindUnsupported(
            f"the head has {depth} layers, its pooler included, and heads have 2 here at most: "
            f"train the head again"
        )
    return taken


def _product(first: _Linear, second: _Linear) -> _Linear:
    weight = second[0].astype(np.float64)
    return float32(weight @ first[0]), float32(weight @ first[1] + second[1])


def _layout(
    config: _HeadConfig, hidden: _Linear | None, backbone: BackboneWeights
) -> HeadLayout | None:
    if config.use_pooler:
        check_pooler(backbone)
        return HeadLayout(hidden="pooler", activation="tanh")
    if hidden is None:
        return None
    return own_layer(hidden[0], activation_of(config.activation_function or "tanh"))


def _labels(
    label2id: Mapping[str, int] | None, num_labels: int, findings: list[Finding]
) -> tuple[str, ...] | None:
    """Return the labels in the order of their ids, None if they do not fit the head."""
    if not label2id:
        return None
    by_id = {number: label for label, number in label2id.items()}
    if sorted(by_id) != list(range(num_labels)) or len(label2id) != num_labels:
        message = f"label2id does not name each of {num_labels} labels once: name them yourself"
        findings.append(Finding("warning", "bad_labels", message))
        return None
    return tuple(by_id[number] for number in range(num_labels))
