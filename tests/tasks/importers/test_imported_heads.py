"""Heads and labels: in the checkpoint, beside it, in part, or nowhere."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch

from tasks.errors import (
    HeadMissing,
    LabelsMismatch,
)
from tasks.importers.backbone_tensors import BackboneTensors
from tasks.importers.importing import ImportOptions, import_checkpoint
from tests.tasks.importers.checkpoints import (
    CLASSIFIER,
    HIDDEN,
    codes,
    lora_config,
    lora_tensors,
    messages,
    values,
    write_peft,
)
from tests.tasks.importers.tiny_models import NUM_LABELS


def without_head(tensors: dict[str, Any]) -> dict[str, Any]:
    return {name: tensor for name, tensor in tensors.items() if CLASSIFIER not in name}


def test_a_missing_head_is_asked_for(backbone: BackboneTensors, tmp_path: Path) -> None:
    folder = write_peft(tmp_path / "peft", without_head(lora_tensors()))

    with pytest.raises(HeadMissing, match="--head"):
        import_checkpoint(folder, backbone, ImportOptions())


def test_lora_on_a_head_that_was_not_saved_is_refused(
    backbone: BackboneTensors, tmp_path: Path
) -> None:
    tensors = without_head(lora_tensors())
    tensors[f"{CLASSIFIER}.lora_A.weight"] = values(2, HIDDEN)
    tensors[f"{CLASSIFIER}.lora_B.weight"] = values(NUM_LABELS, 2)

    with pytest.raises(HeadMissing, match="modules_to_save"):
        import_checkpoint(write_peft(tmp_path / "peft", tensors), backbone, ImportOptions())


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_a_head_in_a_second_file_stands_on_the_pooler(
    suffix: str, backbone: BackboneTensors, tmp_path: Path
) -> None:
    folder = write_peft(tmp_path / "peft", without_head(lora_tensors()))
    head = {"classifier.weight": values(5, HIDDEN), "classifier.bias": values(5)}
    path = tmp_path / f"head.{suffix}"
    if suffix == "bin":
        torch.save({name: torch.from_numpy(tensor) for name, tensor in head.items()}, path)
    else:
        safetensors.numpy.save_file(head, path)

    found = import_checkpoint(folder, backbone, ImportOptions(head=path))

    assert found.level.head_weight is not None
    assert np.array_equal(found.level.head_weight, head["classifier.weight"])
    assert found.level.head is not None
    assert found.level.head.hidden == "pooler"


@pytest.mark.parametrize("name", ["weight", "classifier.weight", "score.weight"])
def test_a_head_of_one_layer_reads_what_it_is_told_to(
    name: str, backbone: BackboneTensors, tmp_path: Path
) -> None:
    folder = write_peft(tmp_path / "peft", without_head(lora_tensors()))
    safetensors.numpy.save_file({name: values(2, HIDDEN)}, tmp_path / "head.safetensors")
    options = ImportOptions(head=tmp_path / "head.safetensors", pooling="mean")

    found = import_checkpoint(folder, backbone, options)

    assert (found.level.pooling, found.level.head) == ("mean", None)
    assert found.level.head_bias is not None
    assert not found.level.head_bias.any()


def test_a_bare_head_must_be_told_what_it_reads(backbone: BackboneTensors, tmp_path: Path) -> None:
    folder = write_peft(tmp_path / "peft", without_head(lora_tensors()))
    safetensors.numpy.save_file({"weight": values(2, HIDDEN)}, tmp_path / "head.safetensors")

    with pytest.raises(HeadMissing, match="--pooling"):
        import_checkpoint(folder, backbone, ImportOptions(head=tmp_path / "head.safetensors"))


def test_lora_on_a_head_is_merged_into_the_one_of_a_file(
    backbone: BackboneTensors, tmp_path: Path
) -> None:
    a, b = values(2, HIDDEN), values(NUM_LABELS, 2)
    tensors = without_head(lora_tensors())
    tensors |= {f"{CLASSIFIER}.lora_A.weight": a, f"{CLASSIFIER}.lora_B.weight": b}
    folder = write_peft(tmp_path / "peft", tensors)
    head = {"classifier.weight": values(NUM_LABELS, HIDDEN), "classifier.bias": values(NUM_LABELS)}
    safetensors.numpy.save_file(head, tmp_path / "head.safetensors")

    found = import_checkpoint(folder, backbone, ImportOptions(head=tmp_path / "head.safetensors"))

    assert found.level.head_weight is not None
    assert np.allclose(found.level.head_weight, head["classifier.weight"] + 2 * b @ a)


def test_copies_of_the_head_are_left_out(backbone: BackboneTensors, tmp_path: Path) -> None:
    copies = {
        f"{CLASSIFIER}.modules_to_save.bias": values(NUM_LABELS),
        f"{CLASSIFIER}.modules_to_save.default.weight": values(NUM_LABELS, HIDDEN),
        f"{CLASSIFIER}.original_module.bias": values(NUM_LABELS, seed=9),
    }
    folder = write_peft(tmp_path / "peft", lora_tensors() | copies)

    found = import_checkpoint(folder, backbone, ImportOptions())

    assert len(messages(found, "duplicate_key")) == 3
    assert found.level.head_bias is not None
    assert np.array_equal(found.level.head_bias, lora_tensors()[f"{CLASSIFIER}.bias"])


def test_a_head_without_a_task_type_is_kept_and_told(
    backbone: BackboneTensors, tmp_path: Path
) -> None:
    folder = write_peft(tmp_path / "peft", config=lora_config(task_type=None))

    found = import_checkpoint(folder, backbone, ImportOptions())
    told = import_checkpoint(folder, backbone, ImportOptions(kind="multi_label"))

    assert (found.kind, told.kind) == ("single_label", "multi_label")
    assert "task_type_assumed" in codes(found) - codes(told)


def test_labels_and_problem_come_from_the_models_config(
    backbone: BackboneTensors, tmp_path: Path
) -> None:
    folder = write_peft(tmp_path / "peft")
    config = {
        "model_type": "bert",
        "problem_type": "multi_label_classification",
        "id2label": {"0": "joy", "2": "anger", "1": "fear"},
    }
    (folder / "config.json").write_text(json.dumps(config))

    found = import_checkpoint(folder, backbone, ImportOptions())

    assert (found.labels, found.kind) == (("joy", "fear", "anger"), "multi_label")
    assert "labels_unnamed" not in codes(found)


def test_labels_must_be_as_many_as_the_head_has(backbone: BackboneTensors, tmp_path: Path) -> None:
    folder = write_peft(tmp_path / "peft")

    with pytest.raises(LabelsMismatch, match=r"2 labels .* 3 rows"):
        import_checkpoint(folder, backbone, ImportOptions(labels=("a", "b")))


def test_a_head_of_one_row_is_a_regression(backbone: BackboneTensors, tmp_path: Path) -> None:
    head = {f"{CLASSIFIER}.weight": values(1, HIDDEN), f"{CLASSIFIER}.bias": values(1)}
    folder = write_peft(tmp_path / "peft", lora_tensors() | head)

    assert import_checkpoint(folder, backbone, ImportOptions()).kind == "regression"
