"""The OpenDelta-shaped folders are what their docstring says, and every tensor is heard."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertModel

from tests.oracles.goldens import BACKBONES, load_golden
from tests.oracles.opendelta_checkpoints import KINDS, expected_logits, write_checkpoint

ROW = load_golden("bare").rows[4]


@pytest.fixture(scope="module")
def plain() -> BertModel:
    """The tiny backbone, with its pooler."""
    model: BertModel = BertModel.from_pretrained(BACKBONES / "bert", local_files_only=True)
    model.train(False)
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_the_folder_holds_a_configuration_and_the_tensors(
    kind: str, plain: BertModel, tmp_path: Path
) -> None:
    """Two files; the pickle needs nothing but tensors."""
    written = write_checkpoint(kind, plain, tmp_path / kind)

    read = torch.load(tmp_path / kind / "pytorch_model.bin", weights_only=True)
    config = json.loads((tmp_path / kind / "config.json").read_bytes())
    assert {file.name for file in written.folder.iterdir()} == {"config.json", "pytorch_model.bin"}
    assert config["delta_type"] == kind
    assert read.keys() == written.tensors.keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in written.tensors.items())


@pytest.mark.parametrize("kind", KINDS)
def test_every_tensor_moves_the_logits(kind: str, plain: BertModel, tmp_path: Path) -> None:
    """None is forgotten by the computation, and the backbone is as before afterwards."""
    written = write_checkpoint(kind, plain, tmp_path / kind)
    before = {name: tensor.clone() for name, tensor in plain.state_dict().items()}
    logits = expected_logits(written, plain, ROW.token_ids, ROW.token_types)

    for name, tensor in written.tensors.items():
        if name.endswith("key.bias"):
            continue  # it adds the same to all scores of a query
        kept = tensor.clone()
        tensor.add_(torch.linspace(-1.0, 1.0, tensor.numel()).reshape(tensor.shape))
        changed = expected_logits(written, plain, ROW.token_ids, ROW.token_types)
        assert np.abs(changed - logits).max() > 1e-4, name
        tensor.copy_(kept)
    after = plain.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_bitfit_with_the_backbones_own_biases_changes_nothing(
    plain: BertModel, tmp_path: Path
) -> None:
    """They replace the backbone's; they are not added."""
    written = write_checkpoint("bitfit", plain, tmp_path / "bitfit")
    for name, tensor in written.tensors.items():
        if name.startswith("bert."):
            tensor.copy_(plain.get_parameter(name.removeprefix("bert.")).detach())

    logits = expected_logits(written, plain, ROW.token_ids, ROW.token_types)

    with torch.inference_mode():
        pooled = plain(
            input_ids=torch.from_numpy(ROW.token_ids)[None],
            token_type_ids=torch.from_numpy(ROW.token_types)[None],
        ).pooler_output[0]
    head = written.tensors["classifier.weight"], written.tensors["classifier.bias"]
    np.testing.assert_allclose(logits, torch.addmv(head[1], head[0], pooled), atol=1e-6)
