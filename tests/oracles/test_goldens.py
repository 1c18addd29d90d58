"""The goldens are well formed, and their backbones are what the library ran."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel

from tests.oracles.goldens import ADAPTERS, BACKBONES, HERE, VARIANTS, Golden, load_golden
from workers.backbone import Backbone
from workers.backbone_store import BackboneStore

BARE = ("bare", "roberta-bare", "distilbert-bare")
MAX_BYTES = 3_000_000


def _num_labels(golden: Golden) -> int:
    head = json.loads((golden.checkpoint / "head_config.json").read_bytes())
    labels = head["num_labels"] if head["config"] is None else head["config"]["num_labels"]
    assert isinstance(labels, int)
    return labels


@pytest.mark.parametrize("name", VARIANTS)
def test_rows_and_logits_fit_each_other(name: str) -> None:
    """Tokens are the backbone's, and there is one logit per label."""
    golden = load_golden(name)
    config = json.loads((golden.backbone / "config.json").read_bytes())

    assert golden.name == name
    assert len(golden.rows) == 6
    for row in golden.rows:
        assert row.token_ids.shape == row.token_types.shape
        assert 0 <= row.token_ids.min() <= row.token_ids.max() < config["vocab_size"]
        for logits in (row.logits, row.logits_without_pet):
            assert logits.dtype == np.float32
            assert logits.shape[-1] == _num_labels(golden)
            assert np.isfinite(logits).all()
        if row.logits.ndim == 2:
            assert len(row.logits_without_pet) == len(row.token_ids)


@pytest.mark.parametrize("name", [name for name in VARIANTS if name not in BARE])
def test_a_pet_is_saved_once_and_is_heard(name: str) -> None:
    """One file of weights beside its configuration; every row's logits are others without it."""
    golden = load_golden(name)
    weights = {"adapter.safetensors", "pytorch_adapter.bin"}
    files = {file.name for file in golden.checkpoint.iterdir()}
    config = json.loads((golden.checkpoint / "adapter_config.json").read_bytes())

    assert len(weights & files) == 1
    assert golden.is_pickled == ("pytorch_adapter.bin" in files)
    assert config["name"] == golden.adapter
    for row in golden.rows:
        ours = row.logits[-len(row.logits_without_pet) :]
        assert np.abs(ours - row.logits_without_pet).max() > 0.05


@pytest.mark.parametrize("name", BARE)
def test_todays_transformers_computes_what_the_library_ran(name: str) -> None:
    """The backbone's hidden states, and with the saved head the logits, within 1e-5."""
    golden = load_golden(name)
    model = AutoModel.from_pretrained(golden.backbone, local_files_only=True)
    model.train(False)
    head = load_file(golden.checkpoint / "model_head.safetensors")
    wanted = load_file(golden.checkpoint / "hidden.safetensors")["hidden"]

    with torch.inference_mode():
        for row in golden.rows:
            inputs = {"input_ids": torch.from_numpy(row.token_ids)[None]}
            if golden.family == "bert":
                inputs["token_type_ids"] = torch.from_numpy(row.token_types)[None]
            hidden = model(**inputs).last_hidden_state[0]
            dense = torch.addmv(head["heads.sst-2.1.bias"], head["heads.sst-2.1.weight"], hidden[0])
            logits = torch.addmv(
                head["heads.sst-2.4.bias"], head["heads.sst-2.4.weight"], dense.tanh()
            )

            torch.testing.assert_close(hidden, wanted[: len(hidden)], rtol=0, atol=1e-5)
            np.testing.assert_allclose(logits, row.logits, rtol=0, atol=1e-5)
            wanted = wanted[len(hidden) :]
    assert len(wanted) == 0


def test_the_store_takes_the_bert_backbone(tmp_path: Path) -> None:
    """It can be added by its folder, and the engine loads it."""
    folder = BackboneStore(tmp_path).add("tiny-bert", BACKBONES / "bert")

    backbone = Backbone.load(folder)
    assert backbone.shape.hidden_size == 32
    assert backbone.shape.num_layers == 2


def test_the_locked_versions_wrote_all_of_it() -> None:
    """After a change of the lock, `make oracles` has to run."""
    written_by = {
        json.loads((ADAPTERS / name / "golden.json").read_bytes())["written_by"]
        for name in VARIANTS
    }
    (versions,) = written_by

    lock = (HERE / "requirements.lock").read_text()
    for library in ("adapters", "transformers", "torch"):
        (locked,) = re.findall(rf"^{library}==(\S+)", lock, re.MULTILINE)
        assert re.search(rf"\b{library} {re.escape(locked)}\b", versions)


def test_the_lock_names_no_index() -> None:
    """Hashes pin what is installed; where it comes from is the user's choice."""
    lock = (HERE / "requirements.lock").read_text()

    assert "://" not in lock
    assert "--index-url" not in lock
    for requirement in re.split(r"^(?=[a-z])", lock, flags=re.MULTILINE)[1:]:
        assert "--hash=sha256:" in requirement


def test_the_goldens_are_many_and_small() -> None:
    """Over a hundred variants; a clone does not grow by more than 3 MB."""
    files = [f for folder in (ADAPTERS, BACKBONES) for f in folder.rglob("*") if f.is_file()]

    assert len(VARIANTS) > 100
    assert sum(file.stat().st_size for file in files) < MAX_BYTES
