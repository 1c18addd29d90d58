"""A PET written into a backbone's weights, in numpy: what a fully fine-tuned model would be.

It shares no code with the engine: what is made here is what the engine's answers are held to.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from petstream.benchmarks.engine.cases import LORA_ALPHA, LORA_RANK
from petstream.benchmarks.engine.weight_files import BERT_MODULES

Weights = dict[str, NDArray[Any]]


def merge(plain: Mapping[str, NDArray[Any]], dense: Mapping[str, NDArray[Any]]) -> Weights:
    """Return a copy of BERT's weights with a PET in them; unchanged tensors are the same arrays.

    Args:
        plain: By the names within transformers' `BertModel`, float32.
        dense: The PET's tensors, in the dense form of `tasks.pets`; no adapter's, which no weight
            can stand for.
    """
    merged = dict(plain)
    for key in dense:
        _, layer, site, tensor = key.split(".")
        module = f"encoder.layer.{layer}.{BERT_MODULES[site]}"
        weight, bias = f"{module}.weight", f"{module}.bias"
        values = dense[key]
        if tensor in ("weight", "bias"):
            merged[f"{module}.{tensor}"] = merged[f"{module}.{tensor}"] + values
        elif tensor == "delta":
            merged[weight] = merged[weight] + values
        elif tensor == "dropped":
            merged[weight] = np.where(values, np.float32(0), merged[weight])
        elif tensor == "lora_a":
            up = dense[key.removesuffix("a") + "b"]
            merged[weight] = merged[weight] + np.float32(LORA_ALPHA / LORA_RANK) * (up @ values)
        elif tensor == "scale" and site == "ffn_output":
            merged[weight] = merged[weight] * values
        elif tensor == "scale":
            merged[weight] = merged[weight] * values[:, None]
            merged[bias] = merged[bias] * values
        elif tensor != "lora_b":
            raise ValueError(f"{key} cannot be written into weights")
    return merged
