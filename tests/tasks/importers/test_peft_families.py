"""PEFT and full fine-tunes on the other families, each with its own names and its own head."""

from pathlib import Path
from typing import Any

import peft
import pytest
import safetensors.numpy
import torch
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    DistilBertConfig,
    ElectraConfig,
    MPNetConfig,
    PreTrainedConfig,
    RobertaConfig,
)

from tasks.errors import HeadMissing, KindUnsupported
from tasks.importers.backbone_tensors import BackboneTensors
from tasks.importers.importing import ImportOptions, import_checkpoint
from tests.tasks.importers.tiny_models import (
    NUM_LABELS,
    SIZES,
    assert_same,
    engine_logits,
    expected_logits,
    model_on,
    train,
)

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

CONFIGS: dict[str, PreTrainedConfig] = {
    "roberta": RobertaConfig(**SIZES, type_vocab_size=1),
    "electra": ElectraConfig(**SIZES, embedding_size=16),
    "mpnet": MPNetConfig(**SIZES),
    "distilbert": DistilBertConfig(
        vocab_size=50, dim=16, n_layers=2, n_heads=2, hidden_dim=24, max_position_embeddings=40,
        initializer_range=0.3,
    ),
}  # fmt: skip
HEADS = ["classifier", "pre_classifier"]
_PROMPT: dict[str, Any] = {
    "num_virtual_tokens": 3,
    "token_dim": 16,
    "num_attention_heads": 2,
    "num_layers": 2,
}
VARIANTS: dict[str, peft.PeftConfig] = {
    "lora": peft.LoraConfig(
        task_type="SEQ_CLS", r=2, target_modules="all-linear", modules_to_save=HEADS
    ),
    "dora-bias": peft.LoraConfig(
        task_type="SEQ_CLS", r=2, target_modules="all-linear", modules_to_save=HEADS, bias="all",
        use_dora=True,
    ),
    "prompt": peft.PromptTuningConfig(task_type="SEQ_CLS", modules_to_save=HEADS, **_PROMPT),
    "prefix": peft.PrefixTuningConfig(task_type="SEQ_CLS", modules_to_save=HEADS, **_PROMPT),
}  # fmt: skip


def backbone_of(family: str, folder: Path) -> Path:
    torch.manual_seed(1)
    model: Any = AutoModel
    model.from_config(CONFIGS[family]).save_pretrained(folder / family)
    return folder / family


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_are_those_of_peft(variant: str, family: str, tmp_path: Path) -> None:
    if variant == "prefix" and family in ("mpnet", "distilbert"):
        pytest.skip("PEFT trains no prefix on models that take no past keys")
    folder = backbone_of(family, tmp_path)
    trained = train(
        folder, tmp_path / "peft", VARIANTS[variant], AutoModelForSequenceClassification
    )
    found = import_checkpoint(
        trained.folder, BackboneTensors(folder), ImportOptions(dtype="float32")
    )

    logits = engine_logits(found, folder, tmp_path / "task")

    assert_same(logits, expected_logits(trained.model))
    assert [f.message for f in found.findings if f.code == "unused_key"] == []


@pytest.mark.parametrize("family", CONFIGS)
def test_a_full_fine_tune_answers_as_the_model(family: str, tmp_path: Path) -> None:
    folder = backbone_of(family, tmp_path)
    model = model_on(folder, AutoModelForSequenceClassification)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "relative_attention_bias" not in name:
                parameter.add_(torch.randn_like(parameter) * 0.02)
    model.save_pretrained(tmp_path / "model")
    found = import_checkpoint(
        tmp_path / "model", BackboneTensors(folder), ImportOptions(dtype="float32")
    )

    logits = engine_logits(found, folder, tmp_path / "task")

    assert len(found.labels) == NUM_LABELS
    assert_same(logits, expected_logits(model))


def test_changed_distances_of_mpnet_are_refused(tmp_path: Path) -> None:
    folder = backbone_of("mpnet", tmp_path)
    model = model_on(folder, AutoModelForSequenceClassification)
    with torch.no_grad():
        model.mpnet.encoder.relative_attention_bias.weight.add_(1)
    model.save_pretrained(tmp_path / "model")

    with pytest.raises(KindUnsupported, match="relative_attention_bias"):
        import_checkpoint(tmp_path / "model", BackboneTensors(folder), ImportOptions())


def test_a_head_whose_first_layer_was_not_saved_is_refused(tmp_path: Path) -> None:
    folder = backbone_of("distilbert", tmp_path)
    config = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["q_lin"])
    trained = train(folder, tmp_path / "peft", config, AutoModelForSequenceClassification)
    path = trained.folder / "adapter_model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    kept = {name: tensor for name, tensor in tensors.items() if ".pre_classifier." not in name}
    safetensors.numpy.save_file(kept, path)

    with pytest.raises(HeadMissing, match="pre_classifier"):
        import_checkpoint(trained.folder, BackboneTensors(folder), ImportOptions())
