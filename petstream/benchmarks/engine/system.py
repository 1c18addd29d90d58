"""What a child process builds and runs."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from petstream.benchmarks.engine.cases import Dtype, Pooling

Logits = NDArray[np.float32]
"""Shape (rows, labels), in the order of the case's rows."""


@dataclass(frozen=True, slots=True)
class Request:
    """A system to build for a case."""

    system: str
    weights: Path
    """Folder of `weight_files`."""
    rows: Path
    kinds: tuple[str, ...]
    """Of the tasks' PETs, in turn."""
    threads: int
    dtype: Dtype
    pooling: Pooling = "mean"

    @property
    def how(self) -> str:
        """Return how it batches: what follows the first dash of its name."""
        return self.system.partition("-")[2]


@dataclass(frozen=True, slots=True)
class System:
    """A system that is ready: one pass over a case's rows at each call."""

    run: Callable[[], Logits | None]
    """None of those that answer nothing."""
    library: str
    """Name and version of what runs it."""
    bytes_per_task: float | None = None
    """What each further task takes in memory beside what all share."""
