"""The tensors of a whole fine-tuned model, by their names within the base model."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.errors import KeyMissing, WrongBackbone
from tasks.importers.backbone_tensors import BackboneTensors
from tasks.importers.tensor_file import TensorFile

_OLD_NAMES = {"gamma": "weight", "beta": "bias"}
"""Of LayerNorms, in files that were converted from TensorFlow."""


@dataclass(frozen=True, slots=True, eq=False)
class FullModel:
    """The fine-tuned tensors by their names within the base model."""

    source: str
    tensors: TensorFile
    keys: dict[str, str]
    used: set[str] = field(default_factory=set)

    def take(self, name: str, size: tuple[int, ...] | None = None) -> NDArray[Any]:
        """Return a tensor, and remember that it is used.

        Raises:
            KeyMissing: If it is not there.
            WrongBackbone: If it has another size.
        """
        if name not in self.keys:
            raise KeyMissing(f"{self.source} has no {name}: save the whole model again")
        key = self.keys[name]
        found = self.tensors.shape(key)
        if size is not None and found != size:
            raise WrongBackbone(
                f"{self.source}: {key} has shape {list(found)}, the backbone's has {list(size)}: "
                f"choose another with `--backbone`"
            )
        self.used.add(key)
        return self.tensors[key]

    def change(self, name: str, backbone: BackboneTensors) -> NDArray[np.float32]:
        """Return by how much a tensor differs from the backbone's; see `take`."""
        own = backbone[name]
        return np.asarray(self.take(name, own.shape) - own, np.float32)


def full_model(tensors: TensorFile, source: str, prefix: str) -> FullModel:
    """Return the tensors of a model with a head.

    Args:
        tensors: By the names in the file.
        source: The file's name, for messages.
        prefix: Of the base model's names, left out.
    """
    names = {_current_name(key.removeprefix(f"{prefix}.")): key for key in tensors}
    return FullModel(source, tensors, names)


def _current_name(name: str) -> str:
    module, _, last = name.rpartition(".")
    is_norm = module.endswith("LayerNorm")
    return f"{module}.{_OLD_NAMES[last]}" if is_norm and last in _OLD_NAMES else name
