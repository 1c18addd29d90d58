"""The weights of the backbone that a checkpoint is imported for, by their names within it.

Checkpoints hold whole new biases, norms and matrices, tasks what is added to the backbone's: the
difference needs the backbone. Nothing of `workers` is needed for that, nor torch.
"""

import json
import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from tasks.backbone_families import BackboneFamily, family_of
from tasks.backbone_shape import BackboneShape, backbone_digest, read_shape
from tasks.description import BackboneReference
from tasks.errors import BackboneUnknown
from tasks.importers.tensor_file import TensorFile


class BackboneTensors(Mapping[str, NDArray[Any]]):
    """Name within the base model -> tensor, read from the disk when it is asked for.

    Args:
        folder: A backbone's folder; its name is the backbone's.

    Raises:
        BackboneUnknown: If there is none, or its files are not those of a backbone.
        BadCheckpoint: If the weights are no safetensors.
    """

    def __init__(self, folder: Path) -> None:
        self.shape: BackboneShape = read_shape(folder)
        self.config: dict[str, Any] = json.loads((folder / "config.json").read_bytes())
        try:
            self.family: BackboneFamily = family_of(self.config)
            with (folder / "model.safetensors").open("rb") as file:
                raw = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self.reference = BackboneReference(name=folder.name, digest=backbone_digest(folder))
        except (OSError, ValueError) as error:
            raise BackboneUnknown(
                f"{folder} is no backbone that tasks can stand on ({error}): fetch it again with "
                f"`petstream models fetch {folder.name}`"
            ) from error
        self._file = TensorFile(raw, str(folder / "model.safetensors"))
        prefix = f"{self.family.prefix}."
        self._stored = {name.removeprefix(prefix): name for name in self._file}

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._file[self._stored[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)

    @property
    def first_position(self) -> int:
        """The row of the position table that a row's first token reads; none reads those before."""
        return self.family.first_position(self.config)

    @property
    def has_pooler(self) -> bool:
        """Whether heads that stand on the backbone's pooler have it."""
        return "pooler.dense.weight" in self._stored and "pooler.dense.bias" in self._stored
