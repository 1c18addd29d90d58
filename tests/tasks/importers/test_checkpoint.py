"""Whose a checkpoint is, told by its files, and files that are not read."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tasks.errors import (
    BadCheckpoint,
    FileTooLarge,
    KindUnsupported,
    OriginUnknown,
    PathEscape,
    TaskError,
)
from tasks.importers.checkpoint import read_checkpoint
from tasks.importers.imported import Origin
from tests.tasks.importers.checkpoints import lora_tensors, write_peft


def write_json(folder: Path, **documents: Any) -> Path:  # noqa: ANN401 - JSON
    folder.mkdir(exist_ok=True)
    for name, document in documents.items():
        (folder / f"{name}.json").write_text(json.dumps(document))
    return folder


@pytest.mark.parametrize(
    ("origin", "documents"),
    [
        ("peft", {"adapter_config": {"peft_type": "LORA"}}),
        (
            "adapters",
            {"adapter_config": {"config": {}, "model_type": "bert", "version": "adapters.1.3.0"}},
        ),
        ("opendelta", {"config": {"delta_type": "lora", "model_type": "bert"}}),
        ("opendelta", {"config": {"opendelta_version": "0.3.2"}}),
        ("transformers", {"config": {"model_type": "bert"}}),
    ],
)
def test_the_origin_is_told_by_the_files(
    origin: Origin, documents: dict[str, Any], tmp_path: Path
) -> None:
    assert read_checkpoint(write_json(tmp_path, **documents)).origin == origin


@pytest.mark.parametrize(
    ("documents", "words"),
    [
        ({}, "it has nothing"),
        ({"adapter_config": {"r": 8}}, "adapter_config.json"),
        ({"task": {}}, "petstream tasks add"),
    ],
)
def test_other_folders_are_refused_with_what_to_do(
    documents: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(OriginUnknown, match=words):
        read_checkpoint(write_json(tmp_path, **documents))


def test_a_file_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(b"")

    with pytest.raises(OriginUnknown, match="give the folder"):
        read_checkpoint(path)


def test_an_adapter_by_another_name_lies_in_a_folder_of_that_name(tmp_path: Path) -> None:
    write_peft(tmp_path / "sentiment")

    checkpoint = read_checkpoint(tmp_path)

    assert [finding.code for finding in checkpoint.findings] == ["adapter_in_folder"]
    assert set(checkpoint.weights()[1]) == set(lora_tensors())


def test_of_several_adapters_one_is_asked_for(tmp_path: Path) -> None:
    for name in ("first", "second"):
        write_peft(tmp_path / name)

    with pytest.raises(OriginUnknown, match=r"give one of .*first, .*second"):
        read_checkpoint(tmp_path)


def test_code_of_its_own_is_refused(tmp_path: Path) -> None:
    config = {"model_type": "bert", "auto_map": {"AutoModel": "evil.Model"}}

    with pytest.raises(KindUnsupported, match="auto_map"):
        read_checkpoint(write_json(tmp_path, config=config))


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b" " * (50 << 20), FileTooLarge),
        (b"[" * 200_000, BadCheckpoint),
        (b'{"peft_type": "LORA", "peft_type": "IA3"}', BadCheckpoint),
        (b"[]", BadCheckpoint),
        (b"\xff\xfe", BadCheckpoint),
        (b"", BadCheckpoint),
    ],
    ids=["50 MB", "deep", "doubled", "list", "no text", "empty"],
)
def test_bad_configurations_are_refused(raw: bytes, error: type[TaskError], tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_bytes(raw)

    with pytest.raises(error, match=r"adapter_config\.json"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_links_are_not_followed(name: str, tmp_path: Path) -> None:
    folder = write_peft(tmp_path / "peft")
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")

    with pytest.raises(PathEscape):
        read_checkpoint(folder)


def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    folder = write_peft(tmp_path / "peft")
    (folder / "adapter_model.safetensors").unlink()
    os.mkfifo(folder / "adapter_model.safetensors")

    with pytest.raises(PathEscape):
        read_checkpoint(folder)


def test_a_pickle_by_another_name_is_refused(tmp_path: Path) -> None:
    folder = write_peft(tmp_path / "peft")
    torch.save({"weight": torch.ones(2)}, folder / "adapter_model.safetensors")

    with pytest.raises(BadCheckpoint, match="pickle by another name"):
        read_checkpoint(folder)


def test_missing_weights_are_named(tmp_path: Path) -> None:
    folder = write_peft(tmp_path / "peft")
    (folder / "adapter_model.safetensors").unlink()

    with pytest.raises(BadCheckpoint, match=r"adapter_model\.safetensors, adapter_model\.bin"):
        read_checkpoint(folder).weights()


def test_a_bin_beside_safetensors_is_not_opened(tmp_path: Path) -> None:
    folder = write_peft(tmp_path / "peft")
    (folder / "adapter_model.bin").write_bytes(b"not even a pickle")

    name, _ = read_checkpoint(folder).weights()

    assert name == "adapter_model.safetensors"


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    tensors = lora_tensors()
    key = next(iter(tensors))
    tensors[key] = np.full_like(tensors[key], np.nan)
    _, found = read_checkpoint(write_peft(tmp_path / "peft", tensors)).weights()

    with pytest.raises(BadCheckpoint, match="NaN"):
        found[key]
