"""The tensors of a PEFT checkpoint by module and meaning, and which of them have been used."""

import re
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.backbone_families import FAMILIES, BackboneFamily
from tasks.errors import BadCheckpoint, KeyMissing, WrongBackbone
from tasks.importers.tensor_file import TensorFile

_ROOTS = ("base_model.model.", "base_model.")
"""The second, of prompt methods, has no wrapper around the model."""

_SUFFIX = re.compile(
    r"(.*?)\.?((?:token_adapter\.)?trainable_tokens_delta|lora_embedding_[AB]"
    r"|lora_[AB]\.(?:weight|bias)|lora_magnitude_vector(?:\.weight)?|lora_[ABE]"
    r"|ia3_l|beft_bias|shira_(?:weight|indices)|vera_lambda_[bd]|vera_[AB]"
    r"|ln_tuning_layers\.(?:weight|bias)|base_layer\.(?:weight|bias)|prompt_embeddings"
    r"|weight|bias)",
    re.DOTALL,
)
_SAVED = re.compile(r"\.modules_to_save\.(?:default\.|[^.]+\.(?=[^.]+\.[^.]+\Z))?")
"""PEFT drops the adapter's name behind it only where one more part follows."""
_SAME = {
    "lora_magnitude_vector.weight": "lora_magnitude_vector",
    "base_layer.weight": "weight",
    "base_layer.bias": "bias",
    "ln_tuning_layers.weight": "weight",
    "ln_tuning_layers.bias": "bias",
    "token_adapter.trainable_tokens_delta": "trainable_tokens_delta",
}
"""A module's weight is the same thing whether or not a wrapper stands around it."""


class PeftKeys:
    """A checkpoint's tensors, taken one after the other.

    Args:
        tensors: By the names in the file.
        source: The file's name, for messages.
        family: Of the backbone, whose prefix is left out of modules' names.

    Raises:
        WrongBackbone: If the names are those of another family.
    """

    def __init__(self, tensors: TensorFile, source: str, family: BackboneFamily) -> None:
        self._tensors = tensors
        self._source = source
        self._found: dict[str, dict[str, str]] = {}
        self._paths: dict[str, str] = {}
        self.duplicates: list[str] = []
        self.used: set[str] = set()
        for key in tensors:
            self._add(key, family)

    def modules(self, *meanings: str) -> list[str]:
        """Return the modules that have any of these tensors, by their paths in the base model."""
        return [
            name for name, found in self._found.items() if not found.keys().isdisjoint(meanings)
        ]

    def path(self, module: str) -> str:
        """Return a module's path in the model that was trained, which PEFT's patterns match."""
        return self._paths[module]

    def modules_have(self, module: str) -> bool:
        """Whether there is any tensor of a module."""
        return module in self._found

    def has(self, module: str, meaning: str) -> bool:
        """Whether a tensor is there."""
        return meaning in self._found.get(module, {})

    def key(self, module: str, meaning: str) -> str:
        """Return a tensor's name in the file, for messages."""
        return self._found[module][meaning]

    def shape(self, module: str, meaning: str) -> tuple[int, ...]:
        """Return the shape of a tensor that is there."""
        return self._tensors.shape(self._found[module][meaning])

    def take(self, module: str, meaning: str, *shape: int | None) -> NDArray[Any]:
        """Return a tensor, and remember that it is used.

        Args:
            module: By its path in the base model.
            meaning: Such as `lora_A.weight`.
            shape: What it must be; None: any size.

        Raises:
            KeyMissing: If it is not there.
            WrongBackbone: If it has another shape.
            BadCheckpoint: If it has no elements or is not finite.
        """
        if not self.has(module, meaning):
            raise KeyMissing(
                f"{self._source} has no {meaning} for {self._paths.get(module, module)}, which "
                f"goes with {', '.join(self._found.get(module, {}).values()) or 'it'}: save the "
                f"checkpoint again"
            )
        key = self._found[module][meaning]
        found = self._tensors.shape(key)
        fits = len(found) == len(shape) and all(
            wanted is None or wanted == size for wanted, size in zip(shape, found, strict=True)
        )
        if not fits:
            wanted = ", ".join("any" if size is None else str(size) for size in shape)
            raise WrongBackbone(
                f"{self._source}: {key} has shape {list(found)}, expected [{wanted}]: it was "
                f"trained on another backbone"
            )
        if 0 in found:
            raise BadCheckpoint(f"{self._source}: {key} is empty: save the checkpoint again")
        self.used.add(key)
        return self._tensors[key]

    def give_back(self, modules: Iterable[str]) -> None:
        """Forget that tensors of modules were taken: they became part of nothing."""
        self.used.difference_update(
            key for module in modules for key in self._found[module].values()
        )

    def unused(self) -> list[str]:
        """Return the names in the file of tensors that were neither taken nor known copies."""
        return [key for key in self._tensors if key not in self.used | set(self.duplicates)]

    def _add(self, key: str, family: BackboneFamily) -> None:
        if ".original_module." in key:
            self.duplicates.append(key)
            return
        path = _SAVED.sub(".", key)
        root = next((root for root in _ROOTS if path.startswith(root)), "")
        match = _SUFFIX.fullmatch(path.removeprefix(root))
        if match is None:
            return
        path, meaning = match[1], _SAME.get(match[2], match[2])
        other = next((name for name in FAMILIES if path.startswith(f"{name}.")), family.prefix)
        if other != family.prefix:
            raise WrongBackbone(
                f"{self._source}: {key} is a tensor of {other}, the backbone is "
                f"{family.model_type}: choose another with `--backbone`"
            )
        module = path.removeprefix(f"{family.prefix}.")
        meanings = self._found.setdefault(module, {})
        if meaning in meanings:
            self.duplicates.append(key)
            return
        meanings[meaning] = key
        self._paths[module] = path


def as_float32(values: NDArray[Any]) -> NDArray[np.float32]:
    """Round to float32."""
    return np.ascontiguousarray(values, np.float32)
