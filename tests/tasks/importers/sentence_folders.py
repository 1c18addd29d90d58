"""Folders of sentence-transformers, made by hand as its versions 2 to 6 write them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

MEAN: dict[str, Any] = {
    "word_embedding_dimension": 16,
    "pooling_mode_cls_token": False,
    "pooling_mode_mean_tokens": True,
    "pooling_mode_max_tokens": False,
    "pooling_mode_mean_sqrt_len_tokens": False,
}
"""`1_Pooling/config.json` of version 2."""
CLS: dict[str, Any] = {"embedding_dimension": 16, "pooling_mode": "cls", "include_prompt": True}
"""The same of version 6."""
PLAIN = ("Transformer", "Pooling")
ALL = ("Transformer", "Pooling", "Dense", "Normalize")


def dense_config(activation: str, num_in: int, num_out: int) -> dict[str, Any]:
    """Return `2_Dense/config.json`."""
    module = "linear" if activation == "Identity" else "activation"
    return {
        "in_features": num_in,
        "out_features": num_out,
        "bias": True,
        "activation_function": f"torch.nn.modules.{module}.{activation}",
    }


def add_modules(
    folder: Path,
    kinds: Sequence[str] = ("Transformer", "Pooling", "Normalize"),
    *,
    pooling: Mapping[str, Any] | None = None,
    dense: Mapping[str, Any] | None = None,
    tensors: Mapping[str, NDArray[Any]] | None = None,
    **documents: Any,  # noqa: ANN401 - JSON
) -> Path:
    """Put modules beside an encoder that lies in the folder.

    Args:
        folder: With the checkpoint of the encoder.
        kinds: Of the modules, in their order.
        pooling: Of the Pooling module; None: mean.
        dense: Of the Dense module.
        tensors: Of the Dense module.
        documents: Other files of the folder, by their names without `.json`.
    """
    names = ["" if kind == "Transformer" else f"{i}_{kind}" for i, kind in enumerate(kinds)]
    modules = [
        {"idx": i, "name": str(i), "path": name, "type": f"sentence_transformers.models.{kind}"}
        for i, (name, kind) in enumerate(zip(names, kinds, strict=True))
    ]
    write_json(folder / "modules.json", modules)
    for name, kind in zip(names, kinds, strict=True):
        if kind in ("Pooling", "Dense"):
            (folder / name).mkdir(exist_ok=True)
        if kind == "Pooling":
            write_json(folder / name / "config.json", MEAN if pooling is None else pooling)
        if kind == "Dense":
            write_json(folder / name / "config.json", dense)
            safetensors.numpy.save_file(dict(tensors or {}), folder / name / "model.safetensors")
    for name, document in documents.items():
        write_json(folder / f"{name}.json", document)
    return folder


def dense_tensors(num_in: int, num_out: int) -> dict[str, NDArray[np.float32]]:
    """Return the tensors of a Dense module."""
    rng = np.random.default_rng(5)
    return {
        "linear.weight": rng.normal(size=(num_out, num_in)).astype(np.float32) * 0.3,
        "linear.bias": rng.normal(size=num_out).astype(np.float32) * 0.3,
    }


def write_json(path: Path, document: object) -> None:
    """Write one JSON file."""
    path.write_text(json.dumps(document))
