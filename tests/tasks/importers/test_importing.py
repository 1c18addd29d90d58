"""What an import keeps, what it tells, and what it refuses, on PEFT's files made by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tasks.artifact import open_artifact
from tasks.errors import (
    BadCheckpoint,
    KeyMissing,
    KindUnsupported,
    TaskError,
    WrongBackbone,
)
from tasks.importers.backbone_tensors import BackboneTensors
from tasks.importers.importing import ImportOptions, import_checkpoint
from tests.tasks.importers.checkpoints import (
    CLASSIFIER,
    HIDDEN,
    codes,
    layer_key,
    lora_config,
    lora_tensors,
    messages,
    values,
    write_peft,
)


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
    assert weights.head_weight is not None
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
