"""The way out to PEFT and back: the same task, and what PEFT makes of the folder."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.artifact import Artifact, open_artifact
from tasks.artifact_writer import TrainedLevel, write_artifact
from tasks.errors import ArtifactExists, BackboneMismatch, ExportRefused
from tasks.importers.backbone_tensors import BackboneTensors
from tasks.importers.importing import ImportOptions, import_checkpoint
from tasks.importers.peft.export import export_peft
from tasks.pets.mask import Mask
from tasks.pets.random_weights import random_weights
from tests.tasks.importers.checkpoints import (
    HIDDEN,
    INNER,
    LAYERS,
    layer_key,
    lora_config,
    lora_tensors,
    write_peft,
)
from tests.tasks.importers.peft_variants import OTHERS, WEIGHT_LIKE
from tests.tasks.importers.tiny_models import assert_same, expected_logits, model_on, train

EXPORTED = [
    "lora", "lora-rslora", "lora-patterns", "lora-one-layer", "lora-all-linear", "lora-bias",
    "lora-bias-all", "lora-bias-only", "dora", "dora-bias-all", "vera", "ia3", "ia3-outputs",
    "prefix", "prompt", "p-tuning", "ln-tuning", "lora-pooler-saved",
]  # fmt: skip


def imported(folder: Path, backbone: BackboneTensors, task: Path) -> Artifact:
    return import_checkpoint(folder, backbone, ImportOptions()).write(task, name="mine")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("variant", EXPORTED)
def test_peft_answers_an_exported_task_as_the_one_it_trained(
    variant: str, backbone: BackboneTensors, backbone_folder: Path, tmp_path: Path
) -> None:
    trained = train(backbone_folder, tmp_path / "peft", (WEIGHT_LIKE | OTHERS)[variant])
    task = imported(trained.folder, backbone, tmp_path / "task")

    export_peft(task, 0, backbone, tmp_path / "out")

    loaded = peft.PeftModel.from_pretrained(model_on(backbone_folder), str(tmp_path / "out"))
    assert_same(expected_logits(loaded.eval()), expected_logits(trained.model))
    again = imported(tmp_path / "out", backbone, tmp_path / "again")
    assert again.digest == task.digest


_SIZES = {"query": (HIDDEN, HIDDEN), "intermediate.dense": (INNER, HIDDEN)}
_MODULES = {"query": "attention.self.query", "intermediate.dense": "intermediate.dense"}


@st.composite
def lora_checkpoints(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return tensors and configuration of a LoRA that varies in all that can vary."""
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    has_bias, is_dora = draw(st.booleans()), draw(st.booleans())
    tensors = {k: v for k, v in lora_tensors().items() if "classifier" in k}
    alphas: dict[str, float] = {}
    places = [(layer, site) for layer in range(LAYERS) for site in _SIZES]
    chosen = draw(st.lists(st.sampled_from(places), min_size=1, unique=True))
    for layer, site in chosen:
        num_out, num_in = _SIZES[site]
        rank = draw(st.integers(1, 4))
        module = layer_key(layer, _MODULES[site])
        spread = draw(st.sampled_from([1e-6, 0.1, 5.0]))
        sizes: dict[str, tuple[int, ...]] = {
            "lora_A.weight": (rank, num_in),
            "lora_B.weight": (num_out, rank),
        }
        if is_dora:
            sizes["lora_magnitude_vector"] = (num_out,)
        if draw(st.booleans()):
            sizes["base_layer.bias"] = (num_out,)
        elif has_bias and not is_dora:
            sizes["lora_B.bias"] = (num_out,)
        for name, size in sizes.items():
            tensors[f"{module}.{name}"] = (spread * rng.standard_normal(size)).astype(np.float32)
        if draw(st.booleans()):
            alphas[f"layer.{layer}.{_MODULES[site]}"] = draw(st.floats(0.1, 64))
    changes = {
        "lora_alpha": draw(st.sampled_from([1, 8, 32.5])),
        "use_rslora": draw(st.booleans()),
        "alpha_pattern": alphas,
    }
    return tensors, lora_config(**changes)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(checkpoint=lora_checkpoints())
def test_import_export_import_is_the_identity(
    checkpoint: tuple[dict[str, Any], dict[str, Any]],
    backbone: BackboneTensors,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("round")
    task = imported(write_peft(folder / "peft", *checkpoint), backbone, folder / "task")

    try:
        export_peft(task, 0, backbone, folder / "out")
    except ExportRefused:  # LoRA with and without lora_bias beside each other are two parts
        kinds = [part.kind for part in getattr(task.description.levels[0].pet, "parts", ())]
        assert kinds.count("lora") == 2
        return

    assert imported(folder / "out", backbone, folder / "again").digest == task.digest


def test_what_peft_has_no_place_for_is_refused(backbone: BackboneTensors, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    level = TrainedLevel(
        level=0,
        backbone=backbone.reference,
        shape=backbone.shape,
        pet=Mask(),
        pooling="mean",
        max_tokens=32,
        head_weight=np.zeros((2, HIDDEN)),
        head_bias=np.zeros(2),
        tensors=random_weights(Mask(), backbone.shape, rng),
    )
    described: dict[str, Any] = {
        "kind": "single_label", "labels": ("a", "b"), "takes_pair": False, "source": "",
        "licence": "",
    }  # fmt: skip
    masked = write_artifact(tmp_path / "mask", name="mask", levels=[level], **described)
    found = import_checkpoint(write_peft(tmp_path / "peft"), backbone, ImportOptions())
    mean = dataclasses.replace(found.level, pooling="mean", head=None)
    meaned = write_artifact(
        tmp_path / "mean", name="mean", levels=[mean], **described | {"labels": ("a", "b", "c")}
    )

    with pytest.raises(ExportRefused, match="no mask"):
        export_peft(masked, 0, backbone, tmp_path / "out")
    with pytest.raises(ExportRefused, match="head"):
        export_peft(meaned, 0, backbone, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_labels_and_kind_come_back(backbone: BackboneTensors, tmp_path: Path) -> None:
    options = ImportOptions(labels=("x", "y", "ö"), kind="multi_label")
    found = import_checkpoint(write_peft(tmp_path / "peft"), backbone, options)
    export_peft(found.write(tmp_path / "task", name="mine"), 0, backbone, tmp_path / "out")

    again = import_checkpoint(tmp_path / "out", backbone, ImportOptions())

    assert (again.labels, again.kind) == (("x", "y", "ö"), "multi_label")
    assert again.findings == ()


def test_an_existing_folder_is_not_touched(backbone: BackboneTensors, tmp_path: Path) -> None:
    task = imported(write_peft(tmp_path / "peft"), backbone, tmp_path / "task")

    with pytest.raises(ArtifactExists):
        export_peft(task, 0, backbone, tmp_path / "peft")


def test_a_task_of_another_backbone_is_refused(backbone: BackboneTensors, tmp_path: Path) -> None:
    imported(write_peft(tmp_path / "peft"), backbone, tmp_path / "task")
    path = tmp_path / "task" / "task.json"
    document = json.loads(path.read_text())
    document["levels"][0]["backbone"]["digest"] = "sha256:" + "0" * 64
    path.write_text(json.dumps(document))

    with pytest.raises(BackboneMismatch):
        export_peft(open_artifact(tmp_path / "task"), 0, backbone, tmp_path / "out")
