"""Linear ops merged into one linear layer: for heads, whose layers are the task's own."""

import numpy as np
from numpy.typing import NDArray

from tasks.site_ops import LowRank, SiteOps

Linear = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Weight [out, in] and bias [out]."""


def merge(linear: Linear, ops: SiteOps) -> Linear:
    """Return the layer that computes what `linear` does with the ops (see `tasks.site_ops`).

    Only ops that keep it linear: no gate, no adapter. Computed in float64.
    """
    weight, bias = (part.astype(np.float64) for part in linear)
    if ops.sparse is not None:
        changed = weight.reshape(-1)
        values = ops.sparse.values
        positions = ops.sparse.flat_indices
        changed[positions] += -changed[positions] if values is None else values
    if ops.dense is not None:
        weight = weight + ops.dense
    if ops.low_rank is not None:
        weight = weight + _product(ops.low_rank)
    if ops.magnitude is not None:
        lengths = np.linalg.norm(weight, axis=1)
        weight = weight * (ops.magnitude / lengths)[:, None]
    if ops.input_scale is not None:
        weight = weight * ops.input_scale
    if ops.output_scale is not None:
        weight, bias = weight * ops.output_scale[:, None], bias * ops.output_scale
    if ops.bias is not None:
        bias = bias + ops.bias
    return weight.astype(np.float32), bias.astype(np.float32)


def _product(factors: LowRank) -> NDArray[np.float64]:
    return factors.scale * (factors.b.astype(np.float64) @ factors.a.astype(np.float64))
