"""OpenDelta's LoRA, prefix and soft prompt."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.backbone_shape import LINEAR_SITES
from tasks.errors import KeyMissing, KindUnsupported, WrongBackbone
from tasks.importers.imported import Finding
from tasks.importers.ledger import is_zero
from tasks.importers.opendelta.source import Source
from tasks.importers.part import Part, build
from tasks.importers.rounding import float32
from tasks.pets.lora import Lora
from tasks.pets.prefix import Prefix
from tasks.pets.prompt import Prompt
from tasks.pets.site_names import place


def import_lora(source: Source) -> list[Part]:
    """Return a LoRA: y = W x + b + lora_alpha / lora_r * B A x.

    Raises:
        KindUnsupported: If it stands at a module that is no site.
        KeyMissing, BadCheckpoint: As `Ledger`.
    """
    rank = source.config.lora_r
    modules = source.modules_with("lora.lora_A", "lora.lora_B")
    if not modules:
        raise KeyMissing("the checkpoint has no LoRA: it was not copied whole")
    tensors, places = {}, []
    for module in modules:
        layer, site = _linear_place(module, source)
        num_out, num_in = source.shape.linear_shape(site)
        take, target = source.ledger.take, place(layer, site)
        tensors[f"{target}.lora_a"] = take(f"{module}.lora.lora_A", rank, num_in)
        tensors[f"{target}.lora_b"] = take(f"{module}.lora.lora_B", num_out, rank)
        places.append((layer, site))
    if is_zero(values for name, values in tensors.items() if name.endswith("lora_b")):
        message = "lora_B is zero everywhere: the LoRA was never trained"
        source.findings.append(Finding("warning", "zero_lora_b", message))
    source.tell_layers({layer for layer, _ in places})
    alpha = float(source.config.lora_alpha)
    sites = site_names(places, source.shape.num_layers)
    return [Part(build(Lora, rank=rank, alpha=alpha, sites=sites), tensors)]


def import_prefix(source: Source) -> list[Part]:
    """Return a prefix, whose MLP is evaluated here where there is one.

    Raises:
        KindUnsupported: If the backbone is not of BERT's build, or layers cannot be told.
        KeyMissing, BadCheckpoint: As `Ledger`.
    """
    if not source.names.is_like_bert:
        raise KindUnsupported(
            f"a prefix of OpenDelta in {source.config.backbone_class}: only how it works in BERT "
            f"and RoBERTa is certain"
        )
    if source.config.reparameterize:
        states = _reparameterised(source)
        layers = list(range(source.shape.num_layers))
    else:
        states, layers = _plain(source)
    source.tell_layers(set(layers))
    tensors = {}
    for number, layer in enumerate(layers):
        tensors[f"layers.{layer}.attention.prefix_keys"] = float32(states[number, 0])
        tensors[f"layers.{layer}.attention.prefix_values"] = float32(states[number, 1])
    left_out = tuple(i for i in range(source.shape.num_layers) if i not in layers) or None
    return [
        Part(build(Prefix, num_tokens=source.config.prefix_token_num, leave_out=left_out), tensors)
    ]


def import_soft_prompt(source: Source) -> list[Part]:
    """Return a prompt before all of a row's tokens, which takes positions as they do.

    Raises:
        KindUnsupported: If the backbone is not of BERT's build.
        KeyMissing, BadCheckpoint: As `Ledger`.
    """
    if not source.names.is_like_bert:
        raise KindUnsupported(
            f"a soft prompt in {source.config.backbone_class}: whether its vectors get positions "
            f"hangs on the version of transformers that it was trained with"
        )
    num_tokens = source.config.soft_token_num
    name = "soft_prompt_layer.soft_embeds"
    vectors = source.ledger.take(name, num_tokens, source.shape.embedding_size)
    # The first of all tokens is what the model's head reads.
    pet = build(Prompt, num_tokens=num_tokens, place="first", pools_own=False)
    return [Part(pet, {"embeddings.prompt": vectors})]


def site_names(places: list[tuple[int, Any]], num_layers: int) -> tuple[str, ...]:
    """Name sites, with their layers only where they are not in all."""
    sites = list(dict.fromkeys(site for _, site in places))
    if len(places) == len(sites) * num_layers:
        return tuple(sites)
    return tuple(f"{layer}.{site}" for layer, site in places)


def _linear_place(module: str, source: Source) -> tuple[int, Any]:
    found = source.names.place(module)
    if found is None or found[1] not in LINEAR_SITES:
        raise KindUnsupported(
            f"a LoRA at {module}: it can stand at a layer's linear modules only; train it again "
            f"without that one"
        )
    if found[0] >= source.shape.num_layers:
        raise WrongBackbone(
            f"{module} has a LoRA, and the backbone {source.shape.num_layers} layers: import it "
            f"for the backbone that it was trained on"
        )
    return found


def _reparameterised(source: Source) -> NDArray[np.float64]:
    """Return [layers, 2, tokens, hidden]: an MLP's output, which is cut into layers."""
    config, shape, take = source.config, source.shape, source.ledger.take
    width = shape.num_layers * 2 * shape.hidden_size
    prefix = f"{source.names.layers}.0.attention.reparams"
    positions = f"{prefix}.input_tokens"
    if positions in source.ledger:
        counted = np.arange(config.prefix_token_num, dtype=np.float32)
        source.ledger.take_copy(positions, counted)
    x = take(f"{prefix}.wte.weight", config.prefix_token_num, config.embed_dim).astype(np.float64)
    x = x @ take(f"{prefix}.control_trans.0.weight", config.mid_dim, config.embed_dim).T
    x = np.tanh(x + take(f"{prefix}.control_trans.0.bias", config.mid_dim))
    x = x @ take(f"{prefix}.control_trans.2.weight", width, config.mid_dim).T
    x = x + take(f"{prefix}.control_trans.2.bias", width)
    states = x.reshape(config.prefix_token_num, shape.num_layers, 2, shape.hidden_size)
    return np.ascontiguousarray(states.transpose(1, 2, 0, 3))


def _plain(source: Source) -> tuple[NDArray[np.float64], list[int]]:
    """Return [layers, 2, tokens, hidden] and the layers."""
    size = source.config.prefix_token_num, source.shape.hidden_size
    states, layers = [], []
    for layer in range(source.shape.num_layers):
        prefix = f"{source.names.layers}.{layer}.attention.prefix"
        if f"{prefix}.past_key" in source.ledger or f"{prefix}.past_value" in source.ledger:
            pair = [source.ledger.take(f"{prefix}.past_{name}", *size) for name in ("key", "value")]
            states.append(np.stack(pair).astype(np.float64))
            layers.append(layer)
    if not layers:
        raise KeyMissing("the checkpoint has no prefix: it was not copied whole")
    return np.stack(states), layers
