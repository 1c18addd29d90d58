"""Tiny random models of transformers, PEFT on them, and what both make of some rows."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
from numpy.typing import NDArray
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
)

from tasks.importers.importing import Import
from tests.kept_figures import kept_figures
from workers.backbone import Backbone
from workers.engine import Engine, EngineRow

NUM_LABELS = 3
TOLERANCE = 1e-5
ROWS = [np.array(ids, np.int64) for ids in ([2, 7, 9, 3], [2, 11, 3], [2, 5, 5, 41, 8, 23, 3])]
SEQUENCE, TAGGING = BertForSequenceClassification, BertForTokenClassification


SIZES: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 40,
    "initializer_range": 0.3,
}


def tiny_config() -> BertConfig:
    fields = SIZES | {"num_labels": NUM_LABELS}
    return BertConfig(**fields)


def save_backbone(folder: Path) -> Path:
    """Write a BERT of random weights, norms and biases included."""
    torch.manual_seed(1)
    model = BertModel(tiny_config())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.normal_(1.0 if name.endswith("LayerNorm.weight") else 0.0, 0.2)
    model.save_pretrained(folder)
    return folder


def model_on(backbone: Path, kind: Any = SEQUENCE) -> Any:  # noqa: ANN401 - torch's own types
    """Return a model with a random head on the backbone's weights."""
    torch.manual_seed(2)
    return kind.from_pretrained(backbone, num_labels=NUM_LABELS).eval()


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A PEFT model whose every trained tensor has been moved, and the folder it was saved in."""

    model: peft.PeftModel
    folder: Path


def train(
    backbone: Path,
    folder: Path,
    config: peft.PeftConfig,
    kind: Any = SEQUENCE,  # noqa: ANN401
    *,
    change: Callable[[peft.PeftModel], None] | None = None,
) -> Trained:
    """Put a PET on the backbone, move all that would be trained at random, and save it."""
    # PEFT writes into the configuration what it made of it.
    model = peft.get_peft_model(model_on(backbone, kind), deepcopy(config))
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                spread = 0.5 if "prompt" in name or "ia3" in name else 0.15
                parameter.add_(torch.randn_like(parameter) * spread)
    if change is not None:
        change(model)
    model.save_pretrained(str(folder))
    return Trained(model.eval(), folder)


def expected_logits(model: Any) -> list[NDArray[np.float32]]:  # noqa: ANN401 - any torch model
    """Return what the model itself says of each row alone."""
    with torch.inference_mode():
        return [
            model(
                input_ids=torch.from_numpy(ids)[None], attention_mask=torch.ones(1, len(ids))
            ).logits[0].numpy()
            for ids in ROWS
        ]  # fmt: skip


def engine_logits(found: Import, backbone: Path, folder: Path) -> list[NDArray[np.float32]]:
    """Write the import as a task and let the packed engine answer all rows in one batch."""
    artifact = found.write(folder, name="imported")
    engine = Engine(Backbone.load(backbone), threads=1, figures_file=kept_figures())
    try:
        weights = artifact.load_level(
            found.level.level, engine.backbone.shape, backbone_digest=engine.backbone.digest
        )
        task = engine.load_task(artifact.description, found.level.level, weights)
        return engine.run([EngineRow(task, ids) for ids in ROWS])
    finally:
        engine.close()


def assert_same(
    found: list[NDArray[np.float32]],
    expected: list[NDArray[np.float32]],
    tolerance: float = TOLERANCE,
) -> None:
    """Check logits; a prompt's own tokens, which tagging models answer too, are not ours."""
    for ours, theirs in zip(found, expected, strict=True):
        theirs = theirs[-len(ours) :] if theirs.ndim == 2 else theirs
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).max() < tolerance
