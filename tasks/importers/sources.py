"""What parsers of checkpoints are given: documents and tensors that have been read already."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

TensorsByName = Mapping[str, NDArray[np.float32]]


class CheckpointFiles(Protocol):
    """A checkpoint's files by their names."""

    @property
    def documents(self) -> Mapping[str, Any]:
        """Parsed JSON files."""

    @property
    def tensors(self) -> Mapping[str, TensorsByName]:
        """Weight files of any format, each as float32 arrays by name."""


BackboneTensors = TensorsByName
"""The backbone's weights by their names within its base model, read when they are asked for."""
