"""Heads of the adapters library: which are taken, with which labels, and which are refused."""

from typing import Any

import numpy as np
import pytest

from tasks.errors import BadCheckpoint, KeyMissing, KindUnsupported
from tasks.importers.adapterhub import parse_adapterhub
from tasks.importers.imported import ImportedHead, ImportedPet
from tests.tasks.importers.golden_checkpoints import SHAPE, Files, backbone_tensors, golden_files


def parse(files: Files) -> ImportedPet:
    return parse_adapterhub(files, SHAPE, backbone_tensors("bert"))


def head_of(variant: str) -> ImportedHead:
    head = parse(golden_files(variant)).head
    assert head is not None
    return head


@pytest.mark.parametrize(
    ("variant", "kind", "pooling", "hidden", "activation"),
    [
        ("lora", "single_label", "cls", "own", "tanh"),
        ("head-relu", "single_label", "cls", "own", "relu"),
        ("head-one-layer", "single_label", "cls", None, None),
        ("head-no-activation", "single_label", "cls", None, None),
        ("head-pooler", "single_label", "cls", "pooler", "tanh"),
        ("head-multi-label", "multi_label", "cls", "own", "tanh"),
        ("head-regression", "regression", "cls", "own", "tanh"),
        ("head-tagging", "tagging", "none", None, None),
        ("head-tagging-two-layers", "tagging", "none", "own", "tanh"),
        ("head-static-classification", "single_label", "cls", "pooler", "tanh"),
        ("head-static-tagging", "tagging", "none", None, None),
    ],
)
def test_the_form_of_each_head(
    variant: str, kind: str, pooling: str, hidden: str | None, activation: str | None
) -> None:
    """What the engine computes with it is compared with the goldens."""
    head = head_of(variant)
    layout = head.layout

    assert (head.kind, head.pooling) == (kind, pooling)
    assert (layout and layout.hidden, layout and layout.activation) == (hidden, activation)
    assert (head.hidden_weight is None) == (hidden != "own")


def test_labels_are_in_the_order_of_the_heads_rows() -> None:
    """Not in that of the file."""
    files = golden_files("head-labels")
    config = files.documents["head_config.json"]["config"]
    config["label2id"] = {"good": 2, "bad": 0, "fair": 1}

    head = parse(files).head

    assert head is not None
    assert head.labels == ("bad", "fair", "good")


@pytest.mark.parametrize("label2id", [{"a": 0, "b": 2, "c": 3}, {"a": 0}, {"a": 0, "b": 0, "c": 1}])
def test_labels_that_do_not_fit_are_told(label2id: dict[str, int]) -> None:
    """The head is taken without names."""
    files = golden_files("head-labels")
    files.documents["head_config.json"]["config"]["label2id"] = label2id

    found = parse(files)

    assert found.head is not None
    assert found.head.labels is None
    assert "bad_labels" in {finding.code for finding in found.findings}


def test_a_checkpoint_may_have_no_head() -> None:
    """The task's head must come from somewhere else."""
    files = golden_files("lora")
    del files.documents["head_config.json"]

    assert parse(files).head is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"head_type": "multiple_choice"}, "compares several texts"),
        ({"head_type": "question_answering"}, "marks a span"),
        ({"head_type": "dependency_parsing"}, "relates words"),
        ({"head_type": "masked_lm"}, "none that tasks have"),
        ({"use_pooler": True}, "has 3 layers, its pooler included"),
        ({"activation_function": "selu"}, "activation 'selu' has no counterpart"),
    ],
)
def test_heads_without_a_counterpart_are_refused(changes: dict[str, Any], reason: str) -> None:
    """Each with the reason."""
    files = golden_files("lora")
    files.documents["head_config.json"]["config"].update(changes)

    with pytest.raises(KindUnsupported) as caught:
        parse(files)

    assert reason in str(caught.value)


def test_a_static_head_that_is_not_known_is_refused() -> None:
    """By the name of its class."""
    files = golden_files("head-static-classification")
    files.documents["head_config.json"]["model_class"] = "BertForMultipleChoice"

    with pytest.raises(KindUnsupported, match="'BertForMultipleChoice' is not imported"):
        parse(files)


@pytest.mark.parametrize("variant", ["head-pooler", "head-static-classification"])
def test_a_head_on_the_pooler_needs_one(variant: str) -> None:
    """Sentence encoders come without."""
    backbone = {k: v for k, v in backbone_tensors("bert").items() if not k.startswith("pooler.")}

    with pytest.raises(KindUnsupported, match="which this backbone does not have"):
        parse_adapterhub(golden_files(variant), SHAPE, backbone)


@pytest.mark.parametrize(
    "key", ["heads.sst-2.1.weight", "heads.sst-2.1.bias", "heads.sst-2.4.bias"]
)
def test_a_missing_layer_is_named(key: str) -> None:
    """A head is taken whole or not."""
    files = golden_files("lora")
    del files.tensors["model_head.safetensors"][key]

    with pytest.raises(KeyMissing, match=key):
        parse(files)


@pytest.mark.parametrize("shape", [(3, 31), (4, 32), (3, 0), (96,)])
def test_layers_that_do_not_fit_each_other_are_refused(shape: tuple[int, ...]) -> None:
    """Or the number of labels."""
    files = golden_files("lora")
    files.tensors["model_head.safetensors"]["heads.sst-2.4.weight"] = np.ones(shape, np.float32)

    with pytest.raises(BadCheckpoint):
        parse(files)
