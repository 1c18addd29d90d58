"""One task as a whole model of transformers: the backbone with its PET, the pooling, the head."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoModel
from transformers.utils import logging

from petstream.benchmarks.engine.cases import Pooling
from petstream.benchmarks.engine.systems.pooled_heads import pool
from petstream.benchmarks.engine.weight_files import PetFile, merged_folder, pet_path, plain_folder

_ADAPTED = {"attention_output": "attention.output.dense", "ffn_output": "output.dense"}
Hook = Callable[[nn.Module, Any, torch.Tensor], torch.Tensor]


class TaskModel(nn.Module):
    """Takes token ids and mask, (rows, tokens) each; returns logits, (rows, labels)."""

    def __init__(self, encoder: nn.Module, pet: PetFile, pooling: Pooling) -> None:
        super().__init__()
        self._pooling = pooling
        self.encoder = encoder
        labels, hidden = pet.head_weight.shape
        self.head = nn.Linear(hidden, labels)
        self.head.load_state_dict(
            {"weight": torch.from_numpy(pet.head_weight), "bias": torch.from_numpy(pet.head_bias)}
        )

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Run a batch."""
        encoded = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        pooled = pool(encoded.last_hidden_state, attention_mask, self._pooling)
        logits: torch.Tensor = self.head(pooled)
        return logits


def load_encoder(folder: Path) -> Any:  # noqa: ANN401 - a model of transformers has no common type
    """Load a backbone with transformers' fastest attention on a CPU."""
    # It would report the pooler, which nobody asked for.
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    encoder = AutoModel.from_pretrained(folder, local_files_only=True, attn_implementation="sdpa")
    encoder.train(False)
    return encoder


def load_task_model(
    weights: Path, number: int, pooling: Pooling, dtype: torch.dtype = torch.float32
) -> TaskModel:
    """Load the model of a set of weights: merged, or plain with adapters where it has those."""
    pet = PetFile.read(pet_path(weights, number))
    merged = merged_folder(weights, number)
    if merged.is_dir():
        encoder = load_encoder(merged)
    else:
        encoder = load_encoder(plain_folder(weights))
        _add_adapters(encoder, pet, dtype)
    model = TaskModel(encoder, pet, pooling).to(dtype)
    model.train(False)
    return model


def _add_adapters(encoder: Any, pet: PetFile, dtype: torch.dtype) -> None:  # noqa: ANN401
    for number, layer in enumerate(encoder.encoder.layer):
        for site, module in _ADAPTED.items():
            names = [f"{part}.{name}" for part in ("down", "up") for name in ("weight", "bias")]
            tensors = [
                torch.from_numpy(pet.dense[f"layers.{number}.{site}.adapter_{name}"]).to(dtype)
                for name in names
            ]
            layer.get_submodule(module).register_forward_hook(partial(_adapt, tensors))


def _adapt(
    tensors: list[torch.Tensor],
    _module: nn.Module,
    _arguments: Any,  # noqa: ANN401
    output: torch.Tensor,
) -> torch.Tensor:
    """Houlsby's: h + up(gelu(down(h)))."""
    down_weight, down_bias, up_weight, up_bias = tensors
    return output + F.linear(F.gelu(F.linear(output, down_weight, down_bias)), up_weight, up_bias)
