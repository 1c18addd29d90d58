"""What parsers of checkpoints are given: documents and tensors that have been read already."""

from collections.abc import Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

from tasks.errors import BadCheckpoint

TensorsByName = Mapping[str, NDArray[Any]]


class CheckpointFiles(Protocol):
    """A checkpoint's files by their names."""

    @property
    def documents(self) -> Mapping[str, Any]:
        """Parsed JSON files."""

    @property
    def tensors(self) -> Mapping[str, TensorsByName]:
        """Weight files of any format, each as arrays by name, floats as float32."""


BackboneWeights = TensorsByName
"""The backbone's weights by their names within its base model, read when they are asked for."""


def first_file(tensors: Mapping[str, TensorsByName], names: tuple[str, ...]) -> TensorsByName:
    """Return the tensors of the first of the files that is there.

    Raises:
        BadCheckpoint: If none is.
    """
    for name in names:
        if name in tensors:
            return tensors[name]
    raise BadCheckpoint(f"the checkpoint has none of {', '.join(names)}: it was not copied whole")
