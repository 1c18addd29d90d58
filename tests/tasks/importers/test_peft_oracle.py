"""Imported PEFT checkpoints against PEFT itself, on random weights."""

from pathlib import Path

import numpy as np
import peft
import pytest

from tasks.backbone_shape import LINEAR_SITES
from tasks.importers.backbone_tensors import BackboneTensors
from tasks.importers.importing import ImportOptions, import_checkpoint
from tasks.importers.merge import merge
from tasks.site_ops import SiteOps
from tests.tasks.importers.peft_variants import OTHERS, WEIGHT_LIKE
from tests.tasks.importers.tiny_models import (
    TAGGING,
    TOLERANCE,
    assert_same,
    engine_logits,
    expected_logits,
    train,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # PEFT and transformers warn of one another
]
VARIANTS = WEIGHT_LIKE | OTHERS


@pytest.mark.parametrize("variant", WEIGHT_LIKE)
def test_each_layer_is_the_one_that_peft_merges(
    variant: str, backbone: BackboneTensors, backbone_folder: Path, tmp_path: Path
) -> None:
    trained = train(backbone_folder, tmp_path / "peft", WEIGHT_LIKE[variant])

    found = import_checkpoint(trained.folder, backbone, ImportOptions(dtype="float32"))

    pet = found.level.pet
    ops = pet.decode(backbone.shape, pet.encode(backbone.shape, found.level.tensors, "float32"))
    merged = trained.model.merge_and_unload().bert
    # SHiRA's values are stored as float16.
    tolerance = 2e-4 if variant == "shira" else 2e-6
    for layer in range(backbone.shape.num_layers):
        for site in LINEAR_SITES:
            module = backbone.family.module_path(layer, site)
            own = backbone[f"{module}.weight"], backbone[f"{module}.bias"]
            weight, bias = merge(own, ops.get((layer, site), SiteOps()))
            theirs = merged.get_submodule(module)
            assert np.abs(weight - theirs.weight.detach().numpy()).max() < tolerance, module
            if variant != "beft":  # which cannot be merged as a bias of its own
                assert np.abs(bias - theirs.bias.detach().numpy()).max() < tolerance, module


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_are_those_of_peft(
    variant: str, backbone: BackboneTensors, backbone_folder: Path, tmp_path: Path
) -> None:
    trained = train(backbone_folder, tmp_path / "peft", VARIANTS[variant])
    found = import_checkpoint(trained.folder, backbone, ImportOptions(dtype="float32"))

    logits = engine_logits(found, backbone_folder, tmp_path / "task")

    # SHiRA's values are stored as float16.
    tolerance = 5e-3 if variant == "shira" else TOLERANCE
    assert_same(logits, expected_logits(trained.model), tolerance)


@pytest.mark.parametrize(
    "config",
    [
        peft.LoraConfig(task_type="TOKEN_CLS", r=2, target_modules=["query", "dense"]),
        peft.IA3Config(task_type="TOKEN_CLS"),
    ],
    ids=["lora", "ia3"],
)
def test_tagging_logits_are_those_of_peft(
    config: peft.PeftConfig, backbone: BackboneTensors, backbone_folder: Path, tmp_path: Path
) -> None:
    trained = train(backbone_folder, tmp_path / "peft", config, TAGGING)
    found = import_checkpoint(trained.folder, backbone, ImportOptions(dtype="float32"))

    logits = engine_logits(found, backbone_folder, tmp_path / "task")

    assert found.kind == "tagging"
    assert_same(logits, expected_logits(trained.model))


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_tensor_has_a_place(
    variant: str, backbone: BackboneTensors, backbone_folder: Path, tmp_path: Path
) -> None:
    trained = train(backbone_folder, tmp_path / "peft", VARIANTS[variant])

    found = import_checkpoint(trained.folder, backbone, ImportOptions())

    codes = {finding.code for finding in found.findings}
    assert codes.isdisjoint({"unused_key", "missing_key", "zero_lora_b", "other_backbone"})
