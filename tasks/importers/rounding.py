"""Products of a checkpoint's tensors, rounded to what tasks hold."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.errors import BadCheckpoint


def float32(values: NDArray[Any]) -> NDArray[np.float32]:
    """Round to float32.

    Raises:
        BadCheckpoint: If a value is not finite, or beyond float32.
    """
    with np.errstate(over="ignore"):
        rounded = np.ascontiguousarray(values, np.float32)
    if not np.isfinite(rounded).all():
        raise BadCheckpoint("what the checkpoint's tensors multiply to is beyond float32")
    return rounded
