"""Checkpoints of ELECTRAs whose embeddings are not as wide as their layers."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    ElectraConfig,
    ElectraModel,
)

from tasks.artifact import open_artifact
from tasks.errors import KindUnsupported, WrongBackbone
from tasks.importers.adapterhub import parse_adapterhub
from tasks.importers.backbone_tensors import BackboneTensors
from tasks.importers.importing import Import, ImportOptions, import_checkpoint
from tasks.importers.opendelta import parse_opendelta
from tasks.importers.peft.export import export_peft
from tasks.pets.prompt import Prompt
from tests.tasks.importers.checkpoints import codes, values
from tests.tasks.importers.golden_checkpoints import Files
from tests.tasks.importers.tiny_models import (
    SIZES,
    assert_same,
    engine_logits,
    expected_logits,
    model_on,
    train,
)

pytestmark = pytest.mark.filterwarnings("ignore")
WIDTH = 6
HEADS = ["classifier"]
SEQUENCE = AutoModelForSequenceClassification
PROMPT: dict[str, Any] = {
    "task_type": "SEQ_CLS",
    "modules_to_save": HEADS,
    "num_virtual_tokens": 3,
    "token_dim": WIDTH,
    "num_attention_heads": 2,
    "num_layers": 2,
}


def lora(
    targets: str | tuple[str, ...] = ("query",),
    saved: tuple[str, ...] = (),
    **fields: Any,  # noqa: ANN401 - of the configuration
) -> peft.LoraConfig:
    return peft.LoraConfig(
        task_type="SEQ_CLS",
        r=2,
        target_modules=targets if isinstance(targets, str) else [*targets],
        modules_to_save=[*HEADS, *saved],
        **fields,
    )


VARIANTS: dict[str, peft.PeftConfig] = {
    "prompt": peft.PromptTuningConfig(**PROMPT),
    "p-tuning": peft.PromptEncoderConfig(**PROMPT, encoder_hidden_size=8),
    "prefix": peft.PrefixTuningConfig(**PROMPT | {"token_dim": 16}),
    "words-low-rank": lora(targets=("query", "word_embeddings")),
    "words": lora(saved=("word_embeddings",)),
    "token": lora(trainable_token_indices=[5, 9]),
    "places-and-norm": lora(
        saved=("position_embeddings", "token_type_embeddings", "embeddings.LayerNorm")
    ),
    "projection": lora(saved=("embeddings_project",)),
    "biases": lora(bias="all"),
    "all-linear": lora(targets="all-linear"),
    "all-linear-biases": lora(targets="all-linear", bias="all"),
    "dora": lora(targets=("embeddings_project", "query"), use_dora=True),
    "adalora": peft.AdaLoraConfig(
        task_type="SEQ_CLS",
        target_modules=["embeddings_project", "query"],
        modules_to_save=HEADS,
        total_step=10,
    ),
    "ia3": peft.IA3Config(
        task_type="SEQ_CLS",
        target_modules=["embeddings_project", "key", "value"],
        feedforward_modules=[],
        modules_to_save=HEADS,
    ),
    "beft": peft.BeftConfig(
        task_type="SEQ_CLS", target_modules=["embeddings_project", "value"], modules_to_save=HEADS
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Embeddings of 6 values before layers of 16."""
    return save_electra(tmp_path_factory.mktemp("backbones") / "tiny-electra")


def save_electra(folder: Path, width: int = WIDTH) -> Path:
    torch.manual_seed(1)
    model: Any = AutoModel
    model.from_config(ElectraConfig(**SIZES, embedding_size=width)).save_pretrained(folder)
    return folder


def tuned(folder: Path, out: Path, change: Callable[[str], bool]) -> Any:  # noqa: ANN401
    """Save a model of which the parameters that `change` names differ from the backbone's."""
    model = model_on(folder, SEQUENCE)
    torch.manual_seed(4)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if change(name):
                parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(out)
    return model


def imported(checkpoint: Path, folder: Path) -> Import:
    return import_checkpoint(checkpoint, BackboneTensors(folder), ImportOptions(dtype="float32"))


@pytest.mark.parametrize(
    "part", ["", "word_embeddings", "position_embeddings", "LayerNorm", "embeddings_project"]
)
def test_a_full_fine_tune_answers_as_the_model(part: str, folder: Path, tmp_path: Path) -> None:
    """All of it was trained, or one of its parts before the layers."""
    module = f"embeddings.{part}" if part == "LayerNorm" else part
    model = tuned(folder, tmp_path / "model", lambda name: module in name)

    found = imported(tmp_path / "model", folder)

    assert not codes(found) & {"unused_key", "changes_nothing"}
    assert_same(engine_logits(found, folder, tmp_path / "task"), expected_logits(model))
    bare = expected_logits(model_on(folder, SEQUENCE))
    assert all(
        np.abs(ours - theirs).max() > 1e-3
        for ours, theirs in zip(expected_logits(model), bare, strict=True)
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_are_those_of_peft(variant: str, folder: Path, tmp_path: Path) -> None:
    trained = train(folder, tmp_path / "peft", VARIANTS[variant], SEQUENCE)

    found = imported(trained.folder, folder)

    assert "unused_key" not in codes(found)
    assert_same(engine_logits(found, folder, tmp_path / "task"), expected_logits(trained.model))


def test_sparse_changes_of_the_projection_are_refused(folder: Path, tmp_path: Path) -> None:
    config = peft.ShiraConfig(
        task_type="SEQ_CLS", r=1, target_modules=["embeddings_project"], modules_to_save=HEADS
    )
    trained = train(folder, tmp_path / "peft", config, SEQUENCE)

    with pytest.raises(KindUnsupported, match="embeddings_project is no linear layer"):
        imported(trained.folder, folder)


def test_a_projection_that_the_backbone_does_not_have_is_refused(tmp_path: Path) -> None:
    trained = train(
        save_electra(tmp_path / "narrow"), tmp_path / "peft", VARIANTS["all-linear"], SEQUENCE
    )

    with pytest.raises(KindUnsupported, match="embeddings_project was trained"):
        imported(trained.folder, save_electra(tmp_path / "wide", 16))


@pytest.mark.parametrize("variant", ["prompt", "prefix"])
def test_peft_takes_an_exported_task_back(variant: str, folder: Path, tmp_path: Path) -> None:
    """A prompt has the embeddings' width, a prefix that of the layers."""
    trained = train(folder, tmp_path / "peft", VARIANTS[variant], SEQUENCE)
    imported(trained.folder, folder).write(tmp_path / "task", name="mine")

    export_peft(open_artifact(tmp_path / "task"), 0, BackboneTensors(folder), tmp_path / "out")

    loaded = peft.PeftModel.from_pretrained(model_on(folder, SEQUENCE), str(tmp_path / "out"))
    assert_same(expected_logits(loaded.eval()), expected_logits(trained.model))


def test_a_model_with_embeddings_of_another_width_is_refused(folder: Path, tmp_path: Path) -> None:
    """By its configuration, before any tensor is compared."""
    other = save_electra(tmp_path / "wider", 8)
    tuned(other, tmp_path / "model", lambda name: True)

    with pytest.raises(WrongBackbone, match=r"embedding_size=8.*embedding_size=6"):
        imported(tmp_path / "model", folder)


def test_the_adapters_librarys_prompt_passes_through_the_projection(folder: Path) -> None:
    """It stands beside the output of the module `embeddings`, which is projected after that."""
    model: Any = ElectraModel.from_pretrained(folder)
    vectors = values(5, WIDTH)
    document = {
        "config": {"architecture": "prompt_tuning", "combine": "prefix", "prompt_length": 5},
        "hidden_size": 16,
        "model_class": "ElectraAdapterModel",
        "model_name": "tiny-electra",
        "model_type": "electra",
        "name": "mine",
        "version": "adapters.1.3.0",
    }
    name = "electra.prompt_tuning.prompt_tunings.mine.prompt_embedding.weight"
    files = Files({"adapter_config.json": document}, {"adapter.safetensors": {name: vectors}})
    backbone = BackboneTensors(folder)

    found = parse_adapterhub(files, backbone.shape, backbone)

    assert isinstance(found.pet, Prompt)
    assert found.pet.enters == "hidden"
    with torch.inference_mode():
        expected = model.embeddings_project(torch.from_numpy(vectors)).numpy()
    np.testing.assert_allclose(found.tensors["embeddings.prompt"], expected, atol=1e-6)
    without = {key: backbone[key] for key in backbone if "embeddings_project" not in key}
    with pytest.raises(WrongBackbone, match="embeddings_project"):
        parse_adapterhub(files, backbone.shape, without)


def test_opendeltas_soft_prompt_is_as_wide_as_the_word_embeddings(folder: Path) -> None:
    """Its vectors stand among them."""
    vectors = values(4, WIDTH)
    document = {"delta_type": "soft_prompt", "backbone_class": "ElectraModel", "soft_token_num": 4}
    tensors = {"soft_prompt_layer.soft_embeds": vectors}
    files = Files({"config.json": deepcopy(document)}, {"pytorch_model.bin": tensors})
    backbone = BackboneTensors(folder)

    found = parse_opendelta(files, backbone.shape, backbone)

    assert isinstance(found.pet, Prompt)
    assert found.pet.enters == "words"
    np.testing.assert_array_equal(found.tensors["embeddings.prompt"], vectors)
