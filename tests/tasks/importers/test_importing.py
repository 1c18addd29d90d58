"""What an import keeps, what it tells, and what it refuses, on PEFT's files made by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch

from tasks.artifact import open_artifact
from tasks.errors import (
    BadCheckpoint,
    HeadMissing,
    KeyMissing,
    KindUnsupported,
    LabelsMismatch,
    TaskError,
    WrongBackbone,
)
from tasks.importers.backbone_tensors import BackboneTensors
from tasks.importers.importing import Import, ImportOptions, import_checkpoint
from tests.tasks.importers.checkpoints import (
    CLASSIFIER,
    HIDDEN,
    layer_key,
    lora_config,
    lora_tensors,
    values,
    write_peft,
)
from tests.tasks.importers.tiny_models import NUM_LABELS


def codes(found: Import) -> set[str]:
    return {finding.code for finding in found.findings}


def messages(found: Import, code: str) -> list[str]:
    return [finding.message for finding in found.findings if finding.code == code]


def without_head(tensors: dict[str, Any]) -> dict[str, Any]:
    return {name: tensor for name, tensor in tensors.items() if CLASSIFIER not in name}


def test_a_plain_lora_needs_no_word(backbone: BackboneTensors, tmp_path: Path) -> None:
    found = import_checkpoint(
        write_peft(tmp_path / "peft"), backbone, ImportOptions(labels=("a", "b", "c"))
    )

    assert found.findings == ()
    assert found.imported.used_keys == set(lora_tensors())
    assert found.level.pet.model_dump(exclude_none=True) == {
        "kind": "lora", "rank": 2, "alpha": 4.0, "sites": ("query", "value"),
    }  # fmt: skip
    assert found.level.backbone == backbone.reference


def test_it_is_written_as_a_task_that_can_be_read(
    backbone: BackboneTensors, tmp_path: Path
) -> None:
    found = import_checkpoint(write_peft(tmp_path / "peft"), backbone, ImportOptions())

    found.write(tmp_path / "task", name="mine", licence="CC0")

    artifact = open_artifact(tmp_path / "task")
    weights = artifact.load_level(0, backbone.shape, backbone_digest=backbone.reference.digest)
    assert artifact.description.source == "a checkpoint of PEFT"
    assert np.array_equal(weights.head_weight, lora_tensors()[f"{CLASSIFIER}.weight"])


def test_a_pickled_checkpoint_is_the_same_task(backbone: BackboneTensors, tmp_path: Path) -> None:
    one, other = write_peft(tmp_path / "one"), write_peft(tmp_path / "other")
    (other / "adapter_model.safetensors").unlink()
    pickled = {name: torch.from_numpy(tensor) for name, tensor in lora_tensors().items()}
    torch.save(pickled, other / "adapter_model.bin")

    digests = [
        import_checkpoint(folder, backbone, ImportOptions())
        .write(folder / "task", name="mine")
        .digest
        for folder in (one, other)
    ]

    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    ("spread", "code"), [(0.0, "zero_lora_b"), (3e-4, "hardly_trained"), (0.1, None)]
)
def test_factors_that_were_hardly_trained_are_told(
    spread: float, code: str | None, backbone: BackboneTensors, tmp_path: Path
) -> None:
    tensors = {
        name: np.clip(tensor, -1, 1) * spread if "lora_B" in name else tensor
        for name, tensor in lora_tensors().items()
    }

    found = import_checkpoint(write_peft(tmp_path / "peft", tensors), backbone, ImportOptions())

    assert codes(found) & {"zero_lora_b", "hardly_trained"} == ({code} if code else set())


def test_each_key_without_a_place_is_named(backbone: BackboneTensors, tmp_path: Path) -> None:
    odd = {"base_model.model.cls.predictions.transform": values(4), "stray": values(2)}
    folder = write_peft(tmp_path / "peft", lora_tensors() | odd)

    found = import_checkpoint(folder, backbone, ImportOptions())

    assert len(messages(found, "unused_key")) == 2
    assert all(any(name in text for text in messages(found, "unused_key")) for name in odd)


def test_a_place_that_the_configuration_names_and_the_file_lacks_is_named(
    backbone: BackboneTensors, tmp_path: Path
) -> None:
    tensors = {k: v for k, v in lora_tensors().items() if "layer.1.attention.self.value" not in k}

    found = import_checkpoint(write_peft(tmp_path / "peft", tensors), backbone, ImportOptions())

    (message,) = messages(found, "missing_key")
    assert "encoder.layer.1.attention.self.value" in message


def test_half_of_a_pair_is_refused(backbone: BackboneTensors, tmp_path: Path) -> None:
    tensors = lora_tensors()
    del tensors[layer_key(1, "attention.self.value.lora_B.weight")]

    with pytest.raises(KeyMissing, match=r"lora_B\.weight for .*layer\.1\.attention\.self\.value"):
        import_checkpoint(write_peft(tmp_path / "peft", tensors), backbone, ImportOptions())


@pytest.mark.parametrize(
    ("base", "code"),
    [
        ("tiny-bert", None),
        ("someone/Tiny-BERT", None),
        ("/home/me/models/hub-name", None),
        ("bert-base-uncased", "other_base"),
        (None, "base_unknown"),
    ],
)
def test_another_backbone_by_name_is_told(
    base: str | None, code: str | None, backbone: BackboneTensors, tmp_path: Path
) -> None:
    config = lora_config(base_model_name_or_path=base)
    options = ImportOptions(backbone_names=frozenset({"org/hub-name"}))

    found = import_checkpoint(write_peft(tmp_path / "peft", config=config), backbone, options)

    assert codes(found) & {"other_base", "base_unknown"} == ({code} if code else set())


def test_biases_far_from_the_backbones_are_told(backbone: BackboneTensors, tmp_path: Path) -> None:
    key = layer_key(0, "attention.self.query.base_layer.bias")
    tensors = lora_tensors() | {key: values(HIDDEN, spread=3.0)}

    found = import_checkpoint(write_peft(tmp_path / "peft", tensors), backbone, ImportOptions())

    assert "other_backbone" in codes(found)


@pytest.mark.parametrize(
    "changed",
    [
        {layer_key(2, "attention.self.query.lora_A.weight"): values(2, HIDDEN)},
        {layer_key(0, "attention.self.query.lora_A.weight"): values(2, HIDDEN + 1)},
        {"base_model.model.roberta.encoder.layer.0.output.dense.lora_A.weight": values(2, 24)},
    ],
    ids=["layer", "width", "family"],
)
def test_tensors_of_another_backbone_are_refused(
    changed: dict[str, Any], backbone: BackboneTensors, tmp_path: Path
) -> None:
    folder = write_peft(tmp_path / "peft", lora_tensors() | changed)

    with pytest.raises(WrongBackbone):
        import_checkpoint(folder, backbone, ImportOptions())


def test_tensors_of_a_decoder_are_refused(backbone: BackboneTensors, tmp_path: Path) -> None:
    tensors = {"model.layers.0.self_attn.q_proj.lora_A.weight": values(2, HIDDEN)}
    tensors["model.layers.0.self_attn.q_proj.lora_B.weight"] = values(HIDDEN, 2)

    with pytest.raises(KindUnsupported, match="q_proj"):
        import_checkpoint(write_peft(tmp_path / "peft", tensors), backbone, ImportOptions())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"peft_type": "OFT"}, "multiplies the weight"),
        ({"peft_type": "LOHA"}, "every element"),
        ({"peft_type": "ROAD"}, "rotates"),
        ({"peft_type": "SOMETHING_NEW"}, "not known"),
        ({"task_type": "QUESTION_ANS"}, "QUESTION_ANS"),
        ({"task_type": "CAUSAL_LM"}, "CAUSAL_LM"),
        ({"fan_in_fan_out": True}, "Conv1D"),
        ({"init_lora_weights": "pissa_niter_4"}, "backbone's own weights"),
        ({"layer_replication": [[0, 1]]}, "layer_replication"),
        ({"alpha_pattern": {"(a+)+b": 3}}, "too involved"),
        ({"alpha_pattern": {".*.*.*.*x": 3}}, "too involved"),
    ],
)
def test_what_cannot_share_the_backbone_is_refused_with_the_reason(
    changes: dict[str, Any], words: str, backbone: BackboneTensors, tmp_path: Path
) -> None:
    folder = write_peft(tmp_path / "peft", config=lora_config(**changes))

    with pytest.raises(KindUnsupported, match=words):
        import_checkpoint(folder, backbone, ImportOptions())


@pytest.mark.parametrize(
    "changes",
    [
        {"lora_alpha": "many"},
        {"alpha_pattern": ["query"]},
        {"alpha_pattern": {"query": "one"}},
        {"alpha_pattern": {"que[ry": 1}},
        {"base_model_name_or_path": 3},
        {"lora_alpha": 1e300},
    ],
)
def test_fields_of_another_type_are_refused(
    changes: dict[str, Any], backbone: BackboneTensors, tmp_path: Path
) -> None:
    folder = write_peft(tmp_path / "peft", config=lora_config(**changes))

    with pytest.raises(BadCheckpoint, match=r"adapter_config\.json"):
        import_checkpoint(folder, backbone, ImportOptions())


def test_a_scale_of_nothing_is_refused(backbone: BackboneTensors, tmp_path: Path) -> None:
    folder = write_peft(tmp_path / "peft", config=lora_config(lora_alpha=0))

    with pytest.raises(KindUnsupported, match="alpha"):
        import_checkpoint(folder, backbone, ImportOptions())


def test_vera_without_its_matrices_is_refused(backbone: BackboneTensors, tmp_path: Path) -> None:
    key = layer_key(0, "attention.self.query")
    tensors = {f"{key}.vera_lambda_b": values(HIDDEN), f"{key}.vera_lambda_d": values(2)}
    folder = write_peft(tmp_path / "peft", tensors, {"peft_type": "VERA"})

    with pytest.raises(KindUnsupported, match="save_projection"):
        import_checkpoint(folder, backbone, ImportOptions())


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
    assert not found.level.head_bias.any()


def test_a_bare_head_must_be_told_what_it_reads(backbone: BackboneTensors, tmp_path: Path) -> None:
    folder = write_peft(tmp_path / "peft", without_head(lora_tensors()))
    safetensors.numpy.save_file({"weight": values(2, HIDDEN)}, tmp_path / "head.safetensors")

    with pytest.raises(HeadMissing, match="--pooling"):
        import_checkpoint(folder, backbone, ImportOptions(head=tmp_path / "head.safetensors"))


def test_copies_of_the_head_are_left_out(backbone: BackboneTensors, tmp_path: Path) -> None:
    copies = {
        f"{CLASSIFIER}.modules_to_save.bias": values(NUM_LABELS),
        f"{CLASSIFIER}.original_module.bias": values(NUM_LABELS, seed=9),
    }
    folder = write_peft(tmp_path / "peft", lora_tensors() | copies)

    found = import_checkpoint(folder, backbone, ImportOptions())

    assert len(messages(found, "duplicate_key")) == 2
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


def test_float16_is_stored_where_it_loses_nothing(
    backbone: BackboneTensors, tmp_path: Path
) -> None:
    halves = {name: t.astype(np.float16) for name, t in lora_tensors().items()}

    plain = import_checkpoint(write_peft(tmp_path / "a"), backbone, ImportOptions())
    small = import_checkpoint(write_peft(tmp_path / "b", halves), backbone, ImportOptions())

    assert (plain.dtype, small.dtype) == ("float32", "float16")


@pytest.mark.parametrize("name", list(lora_tensors())[:3])
def test_a_tensor_of_another_rank_is_refused(
    name: str, backbone: BackboneTensors, tmp_path: Path
) -> None:
    folder = write_peft(tmp_path / "peft", lora_tensors() | {name: values(2, 2, 2)})

    with pytest.raises(TaskError):
        import_checkpoint(folder, backbone, ImportOptions())
