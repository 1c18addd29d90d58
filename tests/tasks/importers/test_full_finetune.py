"""Whole fine-tuned models as what they add to the backbone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, PreTrainedModel

from tasks.errors import KeyMissing, WrongBackbone
from tasks.importers.backbone_tensors import BackboneTensors
from tasks.importers.importing import Import, ImportOptions, import_checkpoint
from tasks.importers.weight_changes import DeltaMethod, DeltaOptions
from tests.tasks.importers.tiny_models import (
    SEQUENCE,
    TAGGING,
    assert_same,
    engine_logits,
    expected_logits,
    model_on,
)

pytestmark = pytest.mark.filterwarnings("ignore")
Change = Callable[[Any], None]


def tuned(backbone: Path, folder: Path, change: Change, kind: Any = SEQUENCE) -> Any:  # noqa: ANN401
    model = model_on(backbone, kind)
    torch.manual_seed(4)
    with torch.no_grad():
        change(model)
    model.save_pretrained(folder)
    return model


def everything(model: Any) -> None:  # noqa: ANN401 - torch's own types
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.02)


def nothing(model: Any) -> None:  # noqa: ANN401 - torch's own types
    del model


def biases(model: Any) -> None:  # noqa: ANN401 - torch's own types
    for name, parameter in model.bert.named_parameters():
        if name.endswith(".bias") and "pooler" not in name:
            parameter.add_(torch.randn_like(parameter) * 0.1)


def few_weights(model: Any) -> None:  # noqa: ANN401 - torch's own types
    for layer in model.bert.encoder.layer:
        layer.attention.self.query.weight[3, 5] += 0.5
        layer.output.dense.weight[1, 2] -= 0.25


def low_rank(model: Any) -> None:  # noqa: ANN401 - torch's own types
    for layer in model.bert.encoder.layer:
        weight = layer.intermediate.dense.weight
        weight.add_(torch.randn(weight.shape[0], 2) @ torch.randn(2, weight.shape[1]) * 0.1)


def parts_of(found: Import) -> list[str]:
    parts = getattr(found.level.pet, "parts", (found.level.pet,))
    return [part.kind for part in parts]


@pytest.mark.parametrize(
    ("change", "kinds"),
    [
        (nothing, ["bitfit"]),
        (biases, ["bitfit"]),
        (few_weights, ["diff"]),
        (low_rank, ["lora"]),
        (everything, ["dense_delta", "bitfit", "layer_norm", "embedding_delta"]),
    ],
)
def test_what_did_not_change_costs_nothing(
    change: Change,
    kinds: list[str],
    backbone: BackboneTensors,
    backbone_folder: Path,
    tmp_path: Path,
) -> None:
    tuned(backbone_folder, tmp_path / "model", change)

    found = import_checkpoint(tmp_path / "model", backbone, ImportOptions())

    assert parts_of(found) == kinds
    assert found.level.head is not None
    assert found.level.head.hidden == ("own" if change is everything else "pooler")
    codes = {finding.code for finding in found.findings}
    assert ("changes_nothing" in codes) == (change is nothing)
    assert not codes & {"unused_key", "other_backbone"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", [SEQUENCE, TAGGING])
@pytest.mark.parametrize("change", [nothing, biases, few_weights, low_rank, everything])
def test_an_exact_import_answers_as_the_model(
    change: Change,
    kind: type[PreTrainedModel],
    backbone: BackboneTensors,
    backbone_folder: Path,
    tmp_path: Path,
) -> None:
    model = tuned(backbone_folder, tmp_path / "model", change, kind)
    found = import_checkpoint(tmp_path / "model", backbone, ImportOptions(dtype="float32"))

    logits = engine_logits(found, backbone_folder, tmp_path / "task")

    assert_same(logits, expected_logits(model))


@pytest.mark.parametrize(
    ("method", "kind"), [("sparse", "diff"), ("low-rank", "lora"), ("dense", "dense_delta")]
)
def test_the_error_of_each_matrix_is_stated(
    method: DeltaMethod,
    kind: str,
    backbone: BackboneTensors,
    backbone_folder: Path,
    tmp_path: Path,
) -> None:
    model = tuned(backbone_folder, tmp_path / "model", everything)
    options = ImportOptions(delta=DeltaOptions(method, rank=3, density=0.1), dtype="float32")

    found = import_checkpoint(tmp_path / "model", backbone, options)

    pet = found.level.pet
    assert parts_of(found)[0] == kind
    ops = pet.decode(backbone.shape, pet.encode(backbone.shape, found.level.tensors, "float32"))
    module = backbone.family.module_path(1, "query")
    own = backbone[f"{module}.weight"]
    theirs = model.bert.get_submodule(module).weight.detach().numpy()
    kept = np.zeros_like(own)
    op = ops[1, "query"]
    if op.sparse is not None:
        kept.flat[op.sparse.flat_indices] = op.sparse.values
    if op.dense is not None:
        kept += op.dense
    if op.low_rank is not None:
        kept += op.low_rank.scale * op.low_rank.b @ op.low_rank.a
    error = np.linalg.norm(theirs - own - kept) / np.linalg.norm(theirs - own)
    (finding,) = [f for f in found.findings if f.code == "delta_error"]
    worst = float(finding.message.split("at most ")[1].split("%")[0]) / 100
    assert error <= worst + 1e-4
    assert (finding.severity == "warning") == (method != "dense")
    assert (worst < 1e-4) == (method == "dense")


def test_an_old_model_with_gamma_and_a_pickle_is_read(
    backbone: BackboneTensors, backbone_folder: Path, tmp_path: Path
) -> None:
    model = tuned(backbone_folder, tmp_path / "model", biases)
    (tmp_path / "model" / "model.safetensors").unlink()
    state = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in model.state_dict().items()
    }
    state["bert.embeddings.position_ids"] = torch.arange(40)[None]
    torch.save(state, tmp_path / "model" / "pytorch_model.bin")

    found = import_checkpoint(tmp_path / "model", backbone, ImportOptions())

    assert parts_of(found) == ["bitfit"]
    assert "unused_key" not in {finding.code for finding in found.findings}


def test_labels_and_kind_are_those_of_the_model(
    backbone: BackboneTensors, backbone_folder: Path, tmp_path: Path
) -> None:
    model = model_on(backbone_folder, TAGGING)
    model.config.id2label = {0: "O", 1: "B-PER", 2: "I-PER"}
    model.save_pretrained(tmp_path / "model")

    found = import_checkpoint(tmp_path / "model", backbone, ImportOptions())

    assert (found.kind, found.labels) == ("tagging", ("O", "B-PER", "I-PER"))
    assert found.imported.library_version


def test_a_model_of_other_weights_is_told(
    backbone: BackboneTensors, backbone_folder: Path, tmp_path: Path
) -> None:
    config = BertConfig.from_pretrained(backbone_folder, num_labels=3)
    BertForSequenceClassification(config).save_pretrained(tmp_path / "model")

    found = import_checkpoint(tmp_path / "model", backbone, ImportOptions())

    assert "other_backbone" in {finding.code for finding in found.findings}


@pytest.mark.parametrize(
    "changes", [{"model_type": "roberta"}, {"num_hidden_layers": 3}, {"hidden_act": "relu"}]
)
def test_a_model_of_another_build_is_refused(
    changes: dict[str, object], backbone: BackboneTensors, backbone_folder: Path, tmp_path: Path
) -> None:
    tuned(backbone_folder, tmp_path / "model", nothing)
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    with pytest.raises(WrongBackbone):
        import_checkpoint(tmp_path / "model", backbone, ImportOptions())


def test_a_model_that_is_not_whole_is_refused(
    backbone: BackboneTensors, backbone_folder: Path, tmp_path: Path
) -> None:
    model = model_on(backbone_folder)
    state = model.state_dict()
    del state["bert.encoder.layer.1.output.dense.weight"]
    model.config.save_pretrained(tmp_path / "model")
    torch.save(state, tmp_path / "model" / "pytorch_model.bin")

    with pytest.raises(KeyMissing, match=r"encoder\.layer\.1\.output\.dense\.weight"):
        import_checkpoint(tmp_path / "model", backbone, ImportOptions())
