"""The slow, obvious reference: a model of transformers with one task's PET merged into it.

It shares no code with the engine. It reads the dense tensors of a task by the names that the
artifact format documents, changes a private copy of the model, and runs one row at a time.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F
from transformers import AutoModel, PreTrainedModel
from transformers.utils import logging

from petstream.benchmarks.dense_task import DenseTask

_BERT_MODULES = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_output": "attention.output.dense",
    "ffn_input": "intermediate.dense",
    "ffn_output": "output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "ffn_norm": "output.LayerNorm",
}
_DISTILBERT_MODULES = {
    "query": "attention.q_lin",
    "key": "attention.k_lin",
    "value": "attention.v_lin",
    "attention_output": "attention.out_lin",
    "ffn_input": "ffn.lin1",
    "ffn_output": "ffn.lin2",
    "attention_norm": "sa_layer_norm",
    "ffn_norm": "output_layer_norm",
}
_MPNET_MODULES = {
    "query": "attention.attn.q",
    "key": "attention.attn.k",
    "value": "attention.attn.v",
    "attention_output": "attention.attn.o",
    "ffn_input": "intermediate.dense",
    "ffn_output": "output.dense",
    "attention_norm": "attention.LayerNorm",
    "ffn_norm": "output.LayerNorm",
}
_MODULES = {"distilbert": _DISTILBERT_MODULES, "mpnet": _MPNET_MODULES}

_ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "leaky_relu": F.leaky_relu,
    "relu": F.relu,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "tanh": torch.tanh,
}


def plain_model(folder: Path) -> PreTrainedModel:
    """Load a backbone with transformers, unchanged."""
    # It would report the pooler, which nobody asked for.
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    model: PreTrainedModel = AutoModel.from_pretrained(folder, local_files_only=True)
    model.train(False)
    return model


def merged_model(plain: PreTrainedModel, task: DenseTask) -> PreTrainedModel:
    """Return a copy of a plain model with a task's PET in it; unchanged embeddings are shared.

    What can be written into weights is; the rest become hooks. Prefixes and prompts are inputs:
    `reference_logits` gives them.
    """
    embeddings: Any = plain.get_submodule("embeddings")
    model = deepcopy(plain, {id(p): p for p in embeddings.parameters()})
    modules = _MODULES.get(model.config.model_type, _BERT_MODULES)
    layers = "transformer.layer" if modules is _DISTILBERT_MODULES else "encoder.layer"
    for pet, dense in parts_of(task.pet, task.dense):
        by_place: dict[str, dict[str, torch.Tensor]] = {}
        for name, array in dense.items():
            place, tensor = re.fullmatch(r"((?:layers\.\d+\.)?[a-z_0-9]+)\.(.+)", name).groups()  # type: ignore[union-attr]
            by_place.setdefault(place, {})[tensor] = torch.tensor(array)
        shared_rule = by_place.pop("compacter", {}).get("rule")
        with torch.no_grad():
            for place, tensors in by_place.items():
                if place == "embeddings":
                    _change_embeddings(model, plain, tensors)
                else:
                    _, number, site = place.split(".")
                    if site == "attention":
                        continue
                    layer: Any = model.get_submodule(f"{layers}.{number}")
                    module = layer.get_submodule(modules[site])
                    _change_site(module, int(number), site, tensors, pet)
                    if pet.kind in ("adapter", "compacter") and isinstance(module, nn.Linear):
                        _adapt(layer, module, site, tensors, pet, shared_rule)
    return model


def parts_of(pet: Any, dense: dict[str, Any]) -> Iterator[tuple[Any, dict[str, Any]]]:  # noqa: ANN401
    """Yield each part of a PET with its tensors."""
    if pet.kind != "combined":
        yield pet, dense
        return
    for number, part in enumerate(pet.parts):
        prefix = f"parts.{number}."
        yield part, {n.removeprefix(prefix): v for n, v in dense.items() if n.startswith(prefix)}


def reference_logits(
    model: PreTrainedModel,
    task: DenseTask,
    token_ids: NDArray[np.int64],
    token_types: NDArray[np.int64] | None = None,
) -> NDArray[np.float32]:
    """Run one row through a merged model and the task's head."""
    with torch.inference_mode():
        hidden, first = _states_with_pet(model, task, token_ids, token_types)
        vectors = {"mean": hidden.mean(0), "cls": first, "none": hidden}[task.pooling]
        if task.hidden is not None:
            hidden_weight, hidden_bias = task.hidden.weight, task.hidden.bias
            assert task.hidden.activation in ("tanh", "gelu")
            activation = torch.tanh if task.hidden.activation == "tanh" else F.gelu
            layer = torch.tensor(hidden_weight), torch.tensor(hidden_bias)
            vectors = activation(F.linear(vectors, *layer))
        head = torch.tensor(task.head_weight), torch.tensor(task.head_bias)
        outputs = F.linear(vectors, *head) if task.has_output else vectors
        logits: NDArray[np.float32] = outputs.numpy()
    return logits


def hidden_states(
    model: PreTrainedModel,
    token_ids: NDArray[np.int64],
    token_types: NDArray[np.int64] | None = None,
) -> torch.Tensor:
    """Return what the model makes of one row, shape (num_tokens, hidden)."""
    types = {} if token_types is None else {"token_type_ids": torch.from_numpy(token_types)[None]}
    with torch.inference_mode():
        states: torch.Tensor = model(torch.from_numpy(token_ids)[None], **types).last_hidden_state
    return states[0]


def _states_with_pet(
    model: PreTrainedModel,
    task: DenseTask,
    token_ids: NDArray[np.int64],
    token_types: NDArray[np.int64] | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the states of the row's own tokens, and that of the token `cls` pooling reads."""
    ids = torch.from_numpy(token_ids)[None]
    types = torch.zeros_like(ids) if token_types is None else torch.from_numpy(token_types)[None]
    own = torch.arange(ids.shape[1])
    for pet, dense in parts_of(task.pet, task.dense):
        if pet.kind == "prefix":
            offset = pet.num_tokens if pet.moves_positions else 0
            hidden = _with_prefix(model, pet, dense, ids, types, own + offset)
            return hidden, hidden[0]
        if pet.kind == "prompt":
            return _with_prompt(model, pet, torch.tensor(dense["embeddings.prompt"]), ids, types)
    hidden = hidden_states(model, token_ids, token_types)
    return hidden, hidden[0]


def _with_prefix(
    model: Any,  # noqa: ANN401
    pet: Any,  # noqa: ANN401
    dense: dict[str, Any],
    ids: torch.Tensor,
    types: torch.Tensor,
    positions: torch.Tensor,
) -> torch.Tensor:
    """Run layer by layer, with the attention written out."""
    hidden = model.embeddings(input_ids=ids, token_type_ids=types, position_ids=positions[None])
    num_heads = model.config.num_attention_heads
    layers: Any = model.encoder.layer
    for number, layer in enumerate(layers):
        place = f"layers.{number}.attention.prefix"
        attention = layer.attention.self
        query, key, value = attention.query(hidden), attention.key(hidden), attention.value(hidden)
        if f"{place}_keys" in dense:
            gate = torch.ones(())
            if pet.gated:
                gate = _mean_gate(hidden[0], dense, f"{place}_gate")
            key = torch.cat([gate * torch.tensor(dense[f"{place}_keys"])[None], key], dim=1)
            value = torch.cat([gate * torch.tensor(dense[f"{place}_values"])[None], value], dim=1)
        query, key, value = (
            states.unflatten(2, (num_heads, -1)).transpose(1, 2) for states in (query, key, value)
        )
        weights = (query @ key.mT / query.shape[-1] ** 0.5).softmax(-1)
        attended = (weights @ value).transpose(1, 2).flatten(2)
        hidden = layer.attention.output(attended, hidden)
        hidden = layer.output(layer.intermediate(hidden), hidden)
    result: torch.Tensor = hidden[0]
    return result


def _with_prompt(
    model: Any,  # noqa: ANN401
    pet: Any,  # noqa: ANN401
    prompt: torch.Tensor,
    ids: torch.Tensor,
    types: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Insert the virtual tokens before the embeddings' LayerNorm, or behind all of them."""
    length, count = ids.shape[1], len(prompt)
    split = {"first": 0, "after_cls": 1, "last": length}[pet.place]

    def insert(states: torch.Tensor, virtual: torch.Tensor) -> torch.Tensor:
        return torch.cat([states[:, :split], virtual[None], states[:, split:]], dim=1)

    if pet.enters == "words":
        words = insert(model.embeddings.word_embeddings(ids), prompt)
        embedded = model.embeddings(
            inputs_embeds=words,
            token_type_ids=insert(types, torch.zeros(count, dtype=torch.int64)),
        )
    else:
        embedded = model.embeddings(input_ids=ids, token_type_ids=types)
    hidden = model.embeddings_project(embedded) if _has_projection(model) else embedded
    if pet.enters == "hidden":
        hidden = insert(hidden, prompt)
    for layer in model.encoder.layer:
        hidden = layer(hidden)
    all_states = hidden[0]
    own = torch.cat([all_states[:split], all_states[split + count :]])
    return own, own[0] if pet.pools_own else all_states[0]


def _has_projection(model: Any) -> bool:  # noqa: ANN401
    return hasattr(model, "embeddings_project")


def _change_embeddings(
    model: Any,  # noqa: ANN401
    plain: Any,  # noqa: ANN401
    tensors: dict[str, torch.Tensor],
) -> None:
    if model.embeddings.LayerNorm.weight is plain.embeddings.LayerNorm.weight:
        model.embeddings = deepcopy(plain.embeddings)
    embeddings = model.embeddings
    tables = {
        "words": embeddings.word_embeddings.weight,
        "positions": embeddings.position_embeddings.weight,
        "types": embeddings.token_type_embeddings.weight,
        "weight": embeddings.LayerNorm.weight,
        "bias": embeddings.LayerNorm.bias,
    }
    if _has_projection(model):
        tables["projection.weight"] = model.embeddings_project.weight
        tables["projection.bias"] = model.embeddings_project.bias
    for name, delta in tensors.items():
        if name != "prompt":
            tables[name].add_(delta)


def _change_site(
    module: nn.Module,
    number: int,
    site: str,
    tensors: dict[str, torch.Tensor],
    pet: Any,  # noqa: ANN401
) -> None:
    if isinstance(module, nn.LayerNorm):
        for name, delta in tensors.items():
            module.get_parameter(name).add_(delta)
        return
    assert isinstance(module, nn.Linear)
    _merge_linear(module, number, site, tensors, pet)


def _merge_linear(
    module: nn.Linear,
    number: int,
    site: str,
    tensors: dict[str, torch.Tensor],
    pet: Any,  # noqa: ANN401
) -> None:
    if "lora_a" in tensors:
        _merge_low_rank(module, number, site, tensors, pet)
    if "dropped" in tensors:
        module.weight.masked_fill_(tensors["dropped"], 0.0)
    if "delta" in tensors:
        module.weight.add_(tensors["delta"])
    if "bias" in tensors:
        module.bias.add_(tensors["bias"])
    if "scale" in tensors:
        scale = tensors["scale"]
        inputs = ("ffn_output",) if pet.input_sites is None else pet.input_sites
        if site in inputs or f"{number}.{site}" in inputs:
            module.register_forward_pre_hook(lambda _, args: (args[0] * scale,))
        else:
            module.register_forward_hook(lambda _, __, output: output * scale)


def _merge_low_rank(
    module: nn.Linear,
    number: int,
    site: str,
    tensors: dict[str, torch.Tensor],
    pet: Any,  # noqa: ANN401
) -> None:
    def pattern(name: str, default: float) -> float:
        found = getattr(pet, name, None) or {}
        value: float = found.get(f"{number}.{site}", found.get(site, default))
        return value

    rank = pattern("rank_pattern", pet.rank)
    alpha = pattern("alpha_pattern", pet.alpha)
    a, b = tensors["lora_a"], tensors["lora_b"]
    if pet.kind == "adalora":
        change = pet.alpha / (pet.rank + 1e-5) * b @ torch.diag(tensors["lora_e"]) @ a
        module.weight.add_(change)
        return
    scale = alpha / rank**0.5 if pet.rank_stabilized else alpha / rank
    if "lora_bias" in tensors:
        module.bias.add_(scale * tensors["lora_bias"])
    if "lora_gate.weight" in tensors:
        module.register_forward_hook(
            lambda _, args, output: (
                output + _mean_gate(args[0][0], tensors, "lora_gate") * scale * args[0] @ a.T @ b.T
            )
        )
    elif pet.kind == "dora":
        changed = module.weight + scale * b @ a
        lengths = changed.norm(dim=1, keepdim=True)
        module.weight.copy_(tensors["magnitude"][:, None] * changed / lengths)
    else:
        module.weight.add_(scale * b @ a)


def _mean_gate(states: torch.Tensor, tensors: Mapping[str, Any], name: str) -> torch.Tensor:
    """Return the mean over one row's tokens of the gate's sigmoid."""
    weight, bias = (torch.asarray(tensors[f"{name}.{p}"], copy=True) for p in ("weight", "bias"))
    return torch.sigmoid(states @ weight + bias).mean()


def _adapt(
    layer: Any,  # noqa: ANN401
    module: nn.Linear,
    site: str,
    tensors: dict[str, torch.Tensor],
    pet: Any,  # noqa: ANN401
    rule: torch.Tensor | None,
) -> None:
    """Put an adapter at the end of a sub-layer; a plain one behind any family's dense output."""
    if hasattr(layer, "intermediate") and hasattr(layer.attention, "output"):
        output = layer.attention.output if site == "attention_output" else layer.output
        output.forward = partial(_adapted_output, output, tensors, pet, rule)
        return
    assert pet.reads is pet.adds_to is pet.norm_before is pet.norm_after is None

    def adapt(_: nn.Module, __: Any, h: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
        inner = _ACTIVATIONS[pet.activation](_project(h, "adapter_down", tensors, pet, rule))
        return h + _project(inner, "adapter_up", tensors, pet, rule)

    module.register_forward_hook(adapt)


def _adapted_output(
    output: Any,  # noqa: ANN401
    tensors: dict[str, torch.Tensor],
    pet: Any,  # noqa: ANN401
    rule: torch.Tensor | None,
    hidden_states: torch.Tensor,
    input_tensor: torch.Tensor,
) -> torch.Tensor:
    """Stand for the forward pass of a BertSelfOutput or BertOutput that has an adapter."""
    h = output.dense(hidden_states)
    normed = output.LayerNorm(h + input_tensor)
    source = {None: h, "output": h, "normed": normed, "input": input_tensor}[pet.reads]
    base = {"normed": normed, "summed": h + input_tensor}.get(pet.adds_to, h)

    def own_norm(name: str, states: torch.Tensor) -> torch.Tensor:
        weight, bias = (tensors[f"adapter_norm_{name}.{part}"] for part in ("weight", "bias"))
        return F.layer_norm(states, weight.shape, weight, bias, 1e-5)

    inner = own_norm("before", source) if pet.norm_before else source
    inner = _ACTIVATIONS[pet.activation](_project(inner, "adapter_down", tensors, pet, rule))
    change = _project(inner, "adapter_up", tensors, pet, rule)
    if pet.gated:
        change = change * _mean_gate(source[0], tensors, "adapter_gate")
    if pet.norm_after == "change":
        change = own_norm("after", change)
    result = base + change
    if pet.norm_after == "sum":
        result = own_norm("after", result)
    if not pet.skips_norm:
        result = output.LayerNorm(result + input_tensor)
    normed_result: torch.Tensor = result
    return normed_result


def _project(
    states: torch.Tensor,
    name: str,
    tensors: dict[str, torch.Tensor],
    pet: Any,  # noqa: ANN401
    rule: torch.Tensor | None,
) -> torch.Tensor:
    bias = tensors[f"{name}.bias"]
    if pet.kind == "adapter":
        return states @ tensors[f"{name}.weight"].T + bias
    rules = tensors[f"{name}.rule"] if rule is None else rule
    if pet.phm_rank is None:
        blocks = tensors[f"{name}.blocks"]
    else:
        blocks = tensors[f"{name}.left"] @ tensors[f"{name}.right"]
    weight = torch.stack([torch.kron(rules[i], blocks[i]) for i in range(pet.phm_dim)]).sum(0)
    return states @ weight + bias
