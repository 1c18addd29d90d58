"""The slow, obvious reference: a transformers BertModel with one task's PET merged into it.

It shares no code with the engine. It reads the dense tensors of a task by the names that the
artifact format documents, changes a private copy of the model, and runs one row at a time.
"""

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F
from transformers import BertModel
from transformers.utils import logging

from tests.workers.pets import RandomTask

_MODULES = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_output": "attention.output.dense",
    "ffn_input": "intermediate.dense",
    "ffn_output": "output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "ffn_norm": "output.LayerNorm",
}


def plain_model(folder: Path) -> BertModel:
    """Load a backbone with transformers, unchanged."""
    # It would report the pooler, which nobody asked for.
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    model: BertModel = BertModel.from_pretrained(
        folder, add_pooling_layer=False, local_files_only=True
    )
    model.train(False)
    return model


def merged_model(plain: BertModel, task: RandomTask) -> BertModel:
    """Return a copy of a plain model with a task's PET merged in; the embeddings are shared.

    What can be written into weights is; IA3 and adapters become hooks.
    """
    shared = {id(parameter): parameter for parameter in plain.embeddings.parameters()}
    model = deepcopy(plain, shared)
    by_site: dict[tuple[int, str], dict[str, torch.Tensor]] = {}
    for name, array in task.dense.items():
        _, layer, site, tensor = name.split(".", 3)
        by_site.setdefault((int(layer), site), {})[tensor] = torch.tensor(array)
    with torch.no_grad():
        for (number, site), tensors in by_site.items():
            module = model.get_submodule(f"encoder.layer.{number}.{_MODULES[site]}")
            if isinstance(module, nn.LayerNorm):
                _merge_norm(module, tensors)
            else:
                assert isinstance(module, nn.Linear)
                _merge_linear(module, site, tensors, task.pet)
    return model


def reference_logits(
    model: BertModel,
    task: RandomTask,
    token_ids: NDArray[np.int64],
    token_types: NDArray[np.int64] | None = None,
) -> NDArray[np.float32]:
    """Run one row through a merged model and the task's head."""
    with torch.inference_mode():
        hidden = model(
            input_ids=torch.from_numpy(token_ids)[None],
            token_type_ids=None if token_types is None else torch.from_numpy(token_types)[None],
        ).last_hidden_state[0]
        vectors = {"mean": hidden.mean(0), "cls": hidden[0], "none": hidden}[task.pooling]
        head = torch.tensor(task.head_weight), torch.tensor(task.head_bias)
        logits: NDArray[np.float32] = F.linear(vectors, *head).numpy()
    return logits


def _merge_norm(module: nn.LayerNorm, tensors: dict[str, torch.Tensor]) -> None:
    for name, delta in tensors.items():
        module.get_parameter(name).add_(delta)


def _merge_linear(
    module: nn.Linear,
    site: str,
    tensors: dict[str, torch.Tensor],
    pet: Any,  # noqa: ANN401
) -> None:
    if "lora_a" in tensors:
        module.weight.add_(pet.alpha / pet.rank * tensors["lora_b"] @ tensors["lora_a"])
    if "dropped" in tensors:
        module.weight.masked_fill_(tensors["dropped"], 0.0)
    if "delta" in tensors:
        module.weight.add_(tensors["delta"])
    if "bias" in tensors:
        module.bias.add_(tensors["bias"])
    if "scale" in tensors:
        scale = tensors["scale"]
        if site == "ffn_output":
            module.register_forward_pre_hook(lambda _, args: (args[0] * scale,))
        else:
            module.register_forward_hook(lambda _, __, output: output * scale)
    if "adapter_down.weight" in tensors:
        activation = F.gelu if pet.activation == "gelu" else F.relu

        def adapt(_: nn.Module, __: Any, h: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
            down = F.linear(h, tensors["adapter_down.weight"], tensors["adapter_down.bias"])
            up = F.linear(
                activation(down), tensors["adapter_up.weight"], tensors["adapter_up.bias"]
            )
            return h + up

        module.register_forward_hook(adapt)
