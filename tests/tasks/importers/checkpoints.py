"""Checkpoints as PEFT and transformers write them, made by hand: keys, shapes, configurations."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from tasks.importers.importing import Import
from tests.tasks.importers.tiny_models import NUM_LABELS

HIDDEN, INNER, LAYERS = 16, 24, 2
CLASSIFIER = "base_model.model.classifier"


def layer_key(layer: int, module: str) -> str:
    return f"base_model.model.bert.encoder.layer.{layer}.{module}"


def values(*size: int, seed: int = 0, spread: float = 0.1) -> NDArray[np.float32]:
    return (spread * np.random.default_rng(seed).standard_normal(size)).astype(np.float32)


def lora_tensors(rank: int = 2) -> dict[str, NDArray[Any]]:
    """Return LoRA on query and value of both layers, and a head."""
    tensors = {f"{CLASSIFIER}.weight": values(NUM_LABELS, HIDDEN)}
    tensors[f"{CLASSIFIER}.bias"] = values(NUM_LABELS)
    for layer in range(LAYERS):
        for number, site in enumerate(("query", "value")):
            module = layer_key(layer, f"attention.self.{site}")
            seed = 2 * layer + number
            tensors[f"{module}.lora_A.weight"] = values(rank, HIDDEN, seed=seed)
            tensors[f"{module}.lora_B.weight"] = values(HIDDEN, rank, seed=seed + 10)
    return tensors


def lora_config(**changes: Any) -> dict[str, Any]:  # noqa: ANN401 - fields of the configuration
    return {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS",
        "base_model_name_or_path": "tiny-bert",
        "r": 2,
        "lora_alpha": 4,
        "target_modules": ["query", "value"],
        "modules_to_save": ["classifier", "score"],
    } | changes


def write_peft(
    folder: Path,
    tensors: Mapping[str, NDArray[Any]] | None = None,
    config: Mapping[str, Any] | None = None,
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    document = lora_config() if config is None else config
    (folder / "adapter_config.json").write_text(json.dumps(document))
    safetensors.numpy.save_file(
        dict(lora_tensors() if tensors is None else tensors),
        folder / "adapter_model.safetensors",
    )
    return folder


def codes(found: Import) -> set[str]:
    """Return the codes of what an import tells."""
    return {finding.code for finding in found.findings}


def messages(found: Import, code: str) -> list[str]:
    """Return what an import tells under one code."""
    return [finding.message for finding in found.findings if finding.code == code]
