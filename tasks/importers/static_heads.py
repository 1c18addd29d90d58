"""Heads of transformers' classes, as checkpoints of those classes hold them."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from messages.task_event import TaskKind
from tasks.backbone_families import family_of_class
from tasks.description import HeadLayout
from tasks.errors import BadCheckpoint, KindUnsupported
from tasks.importers.imported import ImportedHead
from tasks.importers.ledger import Ledger
from tasks.importers.model_heads import POOLER, head_layers
from tasks.importers.sources import BackboneWeights
from tasks.site_ops import Activation

HeadUse = Literal["classification", "tagging"]


_USES: Mapping[str, HeadUse] = {
    "ForSequenceClassification": "classification",
    "ForTokenClassification": "tagging",
}


def _use_of(model_class: str) -> HeadUse | None:
    """Return what the head of a known class is for, None if it has another head."""
    found = (use for suffix, use in _USES.items() if model_class.endswith(suffix))
    return next(found, None) if family_of_class(model_class) else None


def take_static_head(model_class: str, ledger: Ledger, backbone: BackboneWeights) -> ImportedHead:
    """Take the head of a class of transformers; its labels are not among the tensors.

    Its kind is the one that the class has by default: a class that was told otherwise
    (`problem_type`) does not leave that in a checkpoint of its head.

    Args:
        model_class: Such as `BertForSequenceClassification`.
        ledger: Names as the class has them.
        backbone: Where a pooler must be if the class uses it.

    Raises:
        KindUnsupported: If the class has another head.
        BadCheckpoint: If the head's tensors are no matrix and vector.
    """
    use, family = _use_of(model_class), family_of_class(model_class)
    if use is None or family is None:
        raise KindUnsupported(
            f"the head of {model_class[:100]!r} is not imported: known are those for sequence and "
            f"token classification"
        )
    hidden, activation, out = head_layers(family, use == "tagging")
    weight, bias = take_linear(ledger, out)
    layout: HeadLayout | None = None
    hidden_weight: NDArray[np.float32] | None = None
    hidden_bias: NDArray[np.float32] | None = None
    if hidden == POOLER:
        check_pooler(backbone)
        layout = HeadLayout(hidden="pooler", activation=activation)
    elif hidden is not None:
        hidden_weight, hidden_bias = take_linear(ledger, hidden)
        layout = own_layer(hidden_weight, activation)
    return ImportedHead(
        weight=weight,
        bias=bias,
        layout=layout,
        hidden_weight=hidden_weight,
        hidden_bias=hidden_bias,
        pooling="none" if use == "tagging" else "cls",
        kind=kind_of(use, len(weight)),
        labels=None,
    )


def is_static_head(model_class: str) -> bool:
    """Whether `take_static_head` knows the class."""
    return _use_of(model_class) is not None


def take_linear(
    ledger: Ledger, module: str, has_bias: bool = True
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Take weight [out, in] and bias [out] of a linear layer of any size; no bias is zeros.

    Raises:
        BadCheckpoint: If the weight is no matrix.
        KeyMissing: If it is not there.
    """
    name = f"{module}.weight"
    if name not in ledger:
        ledger.take(name, 0, 0)
        ledger.check()
    shape = ledger.peek(name).shape
    if len(shape) != 2 or not all(shape):
        raise BadCheckpoint(f"{name} has shape {list(shape)}: a head's layer is a matrix")
    weight = ledger.take(name, *shape)
    if not has_bias:
        return weight, np.zeros(shape[0], np.float32)
    return weight, ledger.take(f"{module}.bias", shape[0])


def own_layer(weight: NDArray[np.float32], activation: Activation) -> HeadLayout:
    """Return the layout of a head with a hidden layer of the weight [features, hidden]."""
    features, hidden = weight.shape
    if not 1 <= features <= 65536:
        raise BadCheckpoint(f"a head with {features} features: it has 65536 at most")
    return HeadLayout(
        hidden="own", features=None if features == hidden else features, activation=activation
    )


def check_pooler(backbone: BackboneWeights) -> None:
    """Check that the backbone has the pooler that a head reads.

    Raises:
        KindUnsupported: If not.
    """
    if "pooler.dense.weight" not in backbone:
        raise KindUnsupported(
            "the head reads the backbone's pooler, which this backbone does not have: import it "
            "for a backbone with one"
        )


def kind_of(use: HeadUse, num_labels: int) -> TaskKind:
    """Return the task kind of a head; one output for a text is a value."""
    if use == "tagging":
        return "tagging"
    return "regression" if num_labels == 1 else "single_label"
