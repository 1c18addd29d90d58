"""Checkpoints as parsers are given them: read from the goldens, and changed at will."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file

from tasks.backbone_shape import BackboneShape
from tests.oracles.goldens import ADAPTERS, BACKBONES

Tensors = dict[str, NDArray[np.float32]]
SHAPE = BackboneShape(
    num_layers=2,
    hidden_size=32,
    num_heads=4,
    intermediate_size=64,
    vocab_size=96,
    max_positions=64,
)
"""Of all tiny backbones."""


@dataclass(slots=True, eq=False)
class Files:
    """A checkpoint that a test may change."""

    documents: dict[str, Any]
    tensors: dict[str, Tensors]

    def weights(self) -> Tensors:
        """Return the tensors of the PET."""
        (found,) = (self.tensors[name] for name in self.tensors if "head" not in name)
        return found

    def config(self) -> dict[str, Any]:
        """Return the method's part of `adapter_config.json`."""
        found: dict[str, Any] = self.documents["adapter_config.json"]["config"]
        return found


def golden_files(variant: str) -> Files:
    """Read a golden checkpoint of the adapters library."""
    return read_files(ADAPTERS / variant)


def read_files(folder: Path) -> Files:
    """Read a checkpoint's folder; its pickles are our own."""
    files = Files({}, {})
    for path in folder.iterdir():
        if path.suffix == ".json" and path.name != "golden.json":
            files.documents[path.name] = json.loads(path.read_bytes())
        elif path.suffix == ".safetensors" and path.name != "hidden.safetensors":
            files.tensors[path.name] = dict(load_file(path))
        elif path.suffix == ".bin":
            loaded: Mapping[str, torch.Tensor] = torch.load(path, weights_only=True)
            files.tensors[path.name] = {name: tensor.numpy() for name, tensor in loaded.items()}
    return files


@cache
def backbone_tensors(family: str) -> Mapping[str, NDArray[np.float32]]:
    """Return a tiny backbone's weights by their names in its base model."""
    loaded = load_file(BACKBONES / family / "model.safetensors")
    return {name.removeprefix(f"{family}."): tensor for name, tensor in loaded.items()}
