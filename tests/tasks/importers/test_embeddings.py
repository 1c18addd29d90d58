"""Checkpoints without a head as embeddings: PEFT's, and those of the other libraries."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import safetensors.numpy
import torch
from numpy.typing import NDArray
from transformers import BertModel

from tasks.description import EmbeddingLayout, HeadLayout
from tasks.errors import ExportRefused, HeadMissing
from tasks.importers.backbone_tensors import BackboneTensors
from tasks.importers.embedding_head import EmbeddingPooling
from tasks.importers.importing import ImportOptions, import_checkpoint
from tasks.importers.peft.export import export_peft
from tests.oracles.goldens import ADAPTERS, BACKBONES
from tests.tasks.importers.checkpoints import (
    HIDDEN,
    codes,
    lora_config,
    lora_tensors,
    messages,
    write_peft,
)
from tests.tasks.importers.tiny_models import ROWS, assert_same, engine_logits, train

pytestmark = pytest.mark.filterwarnings("ignore")  # PEFT and transformers warn of one another
POOL = ImportOptions(pooling="mean", dtype="float32")
EXTRACTS: dict[str, Any] = {"task_type": "FEATURE_EXTRACTION"}
CONFIGS: dict[str, peft.PeftConfig] = {
    "lora": peft.LoraConfig(**EXTRACTS, r=2, target_modules=["query", "value"]),
    "dora": peft.LoraConfig(**EXTRACTS, r=2, use_dora=True, target_modules=["query", "key"]),
    "ia3": peft.IA3Config(**EXTRACTS),
}


def vectors_of(model: Any, pooling: str = "mean") -> list[NDArray[np.float32]]:  # noqa: ANN401
    """Return what the model itself makes of each row alone."""
    with torch.inference_mode():
        states = [
            model(
                input_ids=torch.from_numpy(ids)[None], attention_mask=torch.ones(1, len(ids))
            ).last_hidden_state[0]
            for ids in ROWS
        ]
    return [(s[0] if pooling == "cls" else s.mean(0)).numpy() for s in states]


def without_head() -> dict[str, NDArray[Any]]:
    return {key: values for key, values in lora_tensors().items() if "classifier" not in key}


def headless_config(**changes: Any) -> dict[str, Any]:  # noqa: ANN401
    return lora_config(task_type="FEATURE_EXTRACTION", modules_to_save=None, **changes)


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("variant", CONFIGS)
def test_vectors_are_those_of_peft(
    variant: str,
    pooling: EmbeddingPooling,
    backbone: BackboneTensors,
    backbone_folder: Path,
    tmp_path: Path,
) -> None:
    """FEATURE_EXTRACTION alone says that the vectors are the answer."""
    trained = train(backbone_folder, tmp_path / "peft", CONFIGS[variant], BertModel)
    found = import_checkpoint(trained.folder, backbone, replace(POOL, pooling=pooling))

    vectors = engine_logits(found, backbone_folder, tmp_path / "task")

    assert found.embedding == EmbeddingLayout(dimensions=HIDDEN, normalise=False)
    assert_same(vectors, vectors_of(trained.model, pooling))


@pytest.mark.slow
@pytest.mark.parametrize("variant", CONFIGS)
def test_peft_loads_an_exported_embedding(
    variant: str, backbone: BackboneTensors, backbone_folder: Path, tmp_path: Path
) -> None:
    """It answers the same, and comes back as the same task where the pooling is said again."""
    trained = train(backbone_folder, tmp_path / "peft", CONFIGS[variant], BertModel)
    task = import_checkpoint(trained.folder, backbone, POOL).write(tmp_path / "task", name="mine")

    export_peft(task, 0, backbone, tmp_path / "out")

    model = BertModel.from_pretrained(backbone_folder)
    loaded = peft.PeftModel.from_pretrained(model, str(tmp_path / "out")).eval()
    assert type(loaded) is peft.PeftModelForFeatureExtraction
    assert_same(vectors_of(loaded), vectors_of(trained.model))
    again = import_checkpoint(tmp_path / "out", backbone, POOL).write(tmp_path / "b", name="mine")
    assert again.digest == task.digest


def test_a_layer_behind_the_pooling_is_not_exported(
    backbone: BackboneTensors, tmp_path: Path
) -> None:
    head = {"weight": np.ones((3, HIDDEN), np.float32)}
    safetensors.numpy.save_file(head, tmp_path / "head.safetensors")
    write_peft(tmp_path / "peft", without_head(), headless_config())
    options = replace(POOL, kind="embedding", head=tmp_path / "head.safetensors")
    found = import_checkpoint(tmp_path / "peft", backbone, options)
    task = found.write(tmp_path / "task", name="mine")

    assert found.embedding == EmbeddingLayout(dimensions=3, normalise=False)
    with pytest.raises(ExportRefused, match="behind the pooling"):
        export_peft(task, 0, backbone, tmp_path / "out")


def test_the_pooling_must_be_said(backbone: BackboneTensors, tmp_path: Path) -> None:
    """A wrong guess would give wrong vectors that nobody notices."""
    write_peft(tmp_path / "peft", without_head(), headless_config())

    with pytest.raises(HeadMissing, match="--pooling mean"):
        import_checkpoint(tmp_path / "peft", backbone, ImportOptions())


def test_any_checkpoint_without_a_head_may_be_an_embedding(
    backbone: BackboneTensors, tmp_path: Path
) -> None:
    """Whoever imports says so; until then the head is missing."""
    write_peft(tmp_path / "peft", without_head(), lora_config(modules_to_save=None))
    options = replace(POOL, kind="embedding", normalise=True)

    found = import_checkpoint(tmp_path / "peft", backbone, options)

    assert found.embedding == EmbeddingLayout(dimensions=HIDDEN, normalise=True)
    assert found.level.head == HeadLayout(output="none")
    with pytest.raises(HeadMissing, match="--kind embedding"):
        import_checkpoint(tmp_path / "peft", backbone, ImportOptions())


def test_what_was_trained_behind_the_encoder_is_told(
    backbone: BackboneTensors, tmp_path: Path
) -> None:
    """PEFT adapts BERT's pooler where `dense` is asked for; a pooled vector does not see it."""
    pooler = {
        "base_model.model.pooler.dense.lora_A.weight": np.ones((2, HIDDEN), np.float32),
        "base_model.model.pooler.dense.lora_B.weight": np.ones((HIDDEN, 2), np.float32),
    }
    write_peft(tmp_path / "peft", without_head() | pooler, headless_config())

    found = import_checkpoint(tmp_path / "peft", backbone, POOL)

    assert {name for name in pooler if any(name in m for m in messages(found, "unused_key"))} == (
        set(pooler)
    )
    assert found.imported.used_keys == frozenset(without_head())


def test_a_whole_model_may_be_an_embedding(
    backbone: BackboneTensors, backbone_folder: Path
) -> None:
    """Its pooler does not count as changed, nor is a head looked for."""
    options = replace(POOL, kind="embedding")

    found = import_checkpoint(backbone_folder, backbone, options)

    assert (found.kind, codes(found)) == ("embedding", {"changes_nothing"})


@pytest.mark.parametrize("has_head", [True, False])
def test_an_adapter_of_the_adapters_library_may_be_an_embedding(
    has_head: bool, tmp_path: Path
) -> None:
    """With its own head left out, which is told."""
    checkpoint = shutil.copytree(ADAPTERS / "lora", tmp_path / "adapter")
    if not has_head:
        for path in checkpoint.glob("*head*"):
            path.unlink()
    backbone = BackboneTensors(BACKBONES / "bert")

    found = import_checkpoint(checkpoint, backbone, replace(POOL, kind="embedding"))

    assert found.embedding == EmbeddingLayout(dimensions=32, normalise=False)
    assert found.level.pet.kind == "lora"
    assert ("head_unused" in codes(found)) == has_head


def test_a_head_of_its_own_makes_it_a_classification(
    backbone: BackboneTensors, tmp_path: Path
) -> None:
    """FEATURE_EXTRACTION with `--head` is what it was before there were embeddings."""
    head = {"weight": np.ones((3, HIDDEN), np.float32)}
    safetensors.numpy.save_file(head, tmp_path / "head.safetensors")
    write_peft(tmp_path / "peft", without_head(), headless_config())

    options = ImportOptions(head=tmp_path / "head.safetensors", pooling="mean")
    found = import_checkpoint(tmp_path / "peft", backbone, options)

    assert (found.kind, found.embedding) == ("single_label", None)
