"""Prefix tuning of the library: the keys and values that its pool of prefixes puts out.

One vector for all layers, which stands in the checkpoint or comes from an MLP over embeddings of
the prefix's positions (`PrefixTuning`, `FlatPrefixTuning`). The MLP is evaluated here, once. Rows
keep their positions. Gates are means over a row's tokens, as with `tasks.importers.adapterhub.
low_rank`.
"""

import numpy as np
from numpy.typing import NDArray

from tasks.errors import KindUnsupported
from tasks.importers.activations import activate, activation_of
from tasks.importers.adapterhub.config import PrefixConfig
from tasks.importers.adapterhub.source import Source
from tasks.importers.part import Part, build
from tasks.importers.rounding import float32
from tasks.pets.prefix import Prefix


def import_prefix(config: PrefixConfig, source: Source) -> list[Part]:
    """Return the prefix in the dense form.

    Raises:
        KindUnsupported: If keys and values have gates of their own, or there is no layer.
        KeyMissing, BadCheckpoint: As `Ledger`.
    """
    if config.use_gating and not config.shared_gating:
        raise KindUnsupported(
            "a prefix with one gate for keys and another for values has no counterpart: train "
            "again with shared_gating"
        )
    layers = source.layers(config.leave_out)
    if not layers:
        raise KindUnsupported("the configuration leaves out every layer")
    length, hidden = config.prefix_length, source.shape.hidden_size
    states = _states(config, source, len(layers)).reshape(length, len(layers), 2, hidden)
    tensors = {}
    for number, layer in enumerate(layers):
        target = f"layers.{layer}.attention.prefix"
        tensors[f"{target}_keys"] = float32(states[:, number, 0])
        tensors[f"{target}_values"] = float32(states[:, number, 1])
        if config.use_gating:
            gate = f"{_gates(source, layer)}.{source.name}"
            weight = source.ledger.take(f"{gate}.weight", 1, hidden)
            tensors[f"{target}_gate.weight"] = float32(weight[0])
            tensors[f"{target}_gate.bias"] = source.ledger.take(f"{gate}.bias", 1)
    left_out = tuple(i for i in range(source.shape.num_layers) if i not in layers)
    gated = config.use_gating or None
    pet = build(Prefix, num_tokens=length, leave_out=left_out or None, gated=gated)
    return [Part(pet, tensors)]


def _states(config: PrefixConfig, source: Source, num_layers: int) -> NDArray[np.float64]:
    """Return keys and values [length, layers * 2 * hidden]."""
    length, hidden = config.prefix_length, source.shape.hidden_size
    width = num_layers * 2 * hidden
    if config.flat:
        vector = _take(source, "control_trans", length * width)
        return vector.astype(np.float64).reshape(length, width)
    inner = config.bottleneck_size
    x = _take(source, "wte.weight", length, hidden).astype(np.float64)
    x = x @ _take(source, "control_trans.0.weight", inner, hidden).T
    x = activate(
        activation_of(config.non_linearity), x + _take(source, "control_trans.0.bias", inner)
    )
    x = x @ _take(source, "control_trans.2.weight", width, inner).T
    return x + _take(source, "control_trans.2.bias", width)


def _take(source: Source, name: str, *shape: int) -> NDArray[np.float32]:
    """Take a tensor of the pool; each layer holds the same pool, so that it is saved again."""
    path = f"prefix_tuning.prefix_tunings.{source.name}.{source.places.prefix_group}.{name}"
    found = source.ledger.take(path, *shape)
    if path not in source.ledger:
        return found
    attention = f"{source.places.layers}.{{}}.{source.places.attention}"
    for layer in range(source.shape.num_layers):
        copy = f"{attention.format(layer)}.{path.replace('prefix_tuning', 'prefix_tuning.pool', 1)}"
        source.ledger.take_copy(copy, found)
    return found


def _gates(source: Source, layer: int) -> str:
    places = source.places
    return f"{places.layers}.{layer}.{places.attention}.prefix_tuning.prefix_gates"
