"""Folders shaped as OpenDelta 0.3.2 writes them, and dense torch computations of their logits.

The library itself cannot be run: it does not import with a transformers of today. The layout and
the maths are from its published source, so that these are weaker witnesses than the goldens of
`tests.oracles.goldens`, which the library in question wrote. Only kinds are here whose maths that
source leaves no doubt about: `adapter`, `lora`, `bitfit`, `parallel_adapter`.

What of it matters to a reader:

* `config.json` is Hugging Face's file name; OpenDelta's has `delta_type`. It leaves out what has
  the library's default value in the base class, and may so lack `modified_modules`.
* `pytorch_model.bin` is a pickle with the names of the model that was trained, here of
  BertForSequenceClassification, the classifier among them if it was unfrozen. Its pooler is the
  backbone's.
* `scaled` of a parallel adapter is in the configuration but never reaches the layer: it is 1.
* The parallel adapter of `attention` reads that module's input and is added to its output, which
  is behind the LayerNorm. That of the feed-forward block hangs at `intermediate.dense`, whose
  input it reads, and is added to the output of `output.dense`, before residual and LayerNorm.
* BitFit's biases replace the backbone's, those of its LayerNorms too. Which of them are in a file
  depends on `modified_modules`; here it is all of every layer.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F
from transformers import BertModel

KINDS = ("adapter", "lora", "bitfit", "parallel_adapter")
BOTTLENECK = 6
LORA_RANK = 4
LORA_ALPHA = 10
NUM_LABELS = 3

_CONFIGS: dict[str, dict[str, Any]] = {
    "adapter": {
        "bottleneck_dim": BOTTLENECK,
        "modified_modules": ["attn@.proj@", "ff@.w2@"],
        "non_linearity": "gelu_new",
        "sequential": True,
    },
    "lora": {
        "lora_alpha": LORA_ALPHA,
        "lora_dropout": 0.0,
        "lora_r": LORA_RANK,
        "modified_modules": ["attn@.q@", "attn@.v@"],
    },
    "bitfit": {"modified_modules": ["attn@", "ff@", "layer_norm@", "lm_head@.proj@"]},
    "parallel_adapter": {
        "bottleneck_dim": BOTTLENECK,
        "modified_modules": ["attn@", "attn@", "ff@.w1@", "ff@.w2@"],
        "non_linearity": "gelu_new",
        "scaled": 1.0,
    },
}
_LINEARS = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)
_NORMS = ("attention.output.LayerNorm", "output.LayerNorm")


@dataclass(frozen=True, slots=True, eq=False)
class OpenDeltaCheckpoint:
    """One folder and the tensors in it, by their names there."""

    kind: str
    folder: Path
    tensors: dict[str, torch.Tensor]


def write_checkpoint(
    kind: str, plain: BertModel, folder: Path, *, seed: int = 0
) -> OpenDeltaCheckpoint:
    """Write a random delta of a kind for a BERT backbone into a new folder."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return 0.5 * torch.randn(shape, generator=generator)

    hidden = plain.config.hidden_size
    tensors: dict[str, torch.Tensor] = {}
    for number in range(plain.config.num_hidden_layers):
        layer = f"bert.encoder.layer.{number}"
        if kind == "lora":
            for site in ("query", "value"):
                at = f"{layer}.attention.self.{site}.lora"
                tensors[f"{at}.lora_A"] = random(LORA_RANK, hidden)
                tensors[f"{at}.lora_B"] = random(hidden, LORA_RANK)
        elif kind == "bitfit":
            for module in (*_LINEARS, *_NORMS):
                size = plain.get_parameter(f"encoder.layer.{number}.{module}.bias").shape[0]
                tensors[f"{layer}.{module}.bias"] = random(size)
        else:
            for module in _bottleneck_modules(kind):
                at = f"{layer}.{module}.{kind}.modulelist"
                tensors[f"{at}.down_proj.weight"] = random(BOTTLENECK, hidden)
                tensors[f"{at}.down_proj.bias"] = random(BOTTLENECK)
                tensors[f"{at}.up_proj.weight"] = random(hidden, BOTTLENECK)
                tensors[f"{at}.up_proj.bias"] = random(hidden)
    tensors["classifier.weight"] = random(NUM_LABELS, hidden)
    tensors["classifier.bias"] = random(NUM_LABELS)
    folder.mkdir(parents=True)
    torch.save(tensors, folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps(_config(kind), indent=2, sort_keys=True) + "\n")
    return OpenDeltaCheckpoint(kind, folder, tensors)


def expected_logits(
    checkpoint: OpenDeltaCheckpoint,
    plain: BertModel,
    token_ids: NDArray[np.int64],
    token_types: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Run one row, unpadded, through a backbone with its pooler and the delta in its modules.

    The model is as before afterwards.
    """
    with torch.inference_mode(), _attached(checkpoint, plain):
        pooled = plain(
            input_ids=torch.from_numpy(token_ids)[None],
            token_type_ids=torch.from_numpy(token_types)[None],
        ).pooler_output[0]
        head = checkpoint.tensors["classifier.weight"], checkpoint.tensors["classifier.bias"]
        logits: NDArray[np.float32] = F.linear(pooled, *head).numpy()
    return logits


def _config(kind: str) -> dict[str, Any]:
    return {
        **_CONFIGS[kind],
        "backbone_checkpoint_name": "tiny-bert",
        "backbone_class": "BertForSequenceClassification",
        "backbone_hash": "0" * 32,
        "common_structure": True,
        "delta_type": kind,
        "opendelta_version": "0.3.2",
        "transformers_version": "4.17.0",
        "unfrozen_modules": ["deltas", "classifier"],
    }


def _bottleneck_modules(kind: str) -> tuple[str, str]:
    if kind == "adapter":
        return "attention.output.dense", "output.dense"
    return "attention", "intermediate.dense"


@contextmanager
def _attached(checkpoint: OpenDeltaCheckpoint, plain: BertModel) -> Iterator[None]:
    """Hang a delta into the model's modules, and take it out again."""
    attach = {
        "adapter": _attach_adapter,
        "lora": _attach_lora,
        "bitfit": _attach_bitfit,
        "parallel_adapter": _attach_parallel_adapter,
    }[checkpoint.kind]
    with ExitStack() as undo:
        for number in range(plain.config.num_hidden_layers):
            prefix = f"bert.encoder.layer.{number}."
            tensors = {
                name.removeprefix(prefix): tensor
                for name, tensor in checkpoint.tensors.items()
                if name.startswith(prefix)
            }
            attach(plain.get_submodule(f"encoder.layer.{number}"), tensors, undo)
        yield


def _attach_adapter(layer: nn.Module, tensors: dict[str, torch.Tensor], undo: ExitStack) -> None:
    for module in _bottleneck_modules("adapter"):
        hook = _adding(_bottleneck(tensors, f"{module}.adapter"))
        undo.callback(layer.get_submodule(module).register_forward_hook(hook).remove)


def _adding(
    bottleneck: Callable[[torch.Tensor], torch.Tensor],
) -> Callable[[nn.Module, Any, torch.Tensor], torch.Tensor]:
    """Return a hook that adds a bottleneck of a module's output to that output."""
    return lambda _, __, output: output + bottleneck(output)


def _attach_lora(layer: nn.Module, tensors: dict[str, torch.Tensor], undo: ExitStack) -> None:
    for site in ("query", "value"):
        name = f"attention.self.{site}"
        delta = tensors[f"{name}.lora.lora_B"] @ tensors[f"{name}.lora.lora_A"]
        weight = layer.get_parameter(f"{name}.weight")
        _replace(weight, weight + LORA_ALPHA / LORA_RANK * delta, undo)


def _attach_bitfit(layer: nn.Module, tensors: dict[str, torch.Tensor], undo: ExitStack) -> None:
    for name, bias in tensors.items():
        _replace(layer.get_parameter(name), bias, undo)


def _attach_parallel_adapter(
    layer: nn.Module, tensors: dict[str, torch.Tensor], undo: ExitStack
) -> None:
    at_attention, at_feed_forward = (
        _bottleneck(tensors, f"{module}.parallel_adapter")
        for module in _bottleneck_modules("parallel_adapter")
    )
    read: list[torch.Tensor] = []

    def add_attention(_: nn.Module, args: Any, output: Any) -> Any:  # noqa: ANN401
        return output[0] + at_attention(args[0]), *output[1:]

    def keep(_: nn.Module, args: Any) -> None:  # noqa: ANN401
        read.append(args[0])

    def add_feed_forward(_: nn.Module, __: Any, output: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
        return output + at_feed_forward(read.pop())

    for handle in (
        layer.get_submodule("attention").register_forward_hook(add_attention),
        layer.get_submodule("intermediate.dense").register_forward_pre_hook(keep),
        layer.get_submodule("output.dense").register_forward_hook(add_feed_forward),
    ):
        undo.callback(handle.remove)


def _bottleneck(
    tensors: dict[str, torch.Tensor], at: str
) -> Callable[[torch.Tensor], torch.Tensor]:
    down = tensors[f"{at}.modulelist.down_proj.weight"], tensors[f"{at}.modulelist.down_proj.bias"]
    up = tensors[f"{at}.modulelist.up_proj.weight"], tensors[f"{at}.modulelist.up_proj.bias"]
    # `gelu_new` is the one with tanh.
    return lambda x: F.linear(F.gelu(F.linear(x, *down), approximate="tanh"), *up)


def _replace(parameter: torch.Tensor, value: torch.Tensor, undo: ExitStack) -> None:
    kept = parameter.detach().clone()
    undo.callback(parameter.copy_, kept)
    parameter.copy_(value)
