"""A task's arrays as torch tensors, and its LayerNorms as whole ones."""

import numpy as np
import torch
from numpy.typing import NDArray

from gpu_ops.layer_norm import NormWeights
from tasks.site_ops import SiteOps


def as_tensor(array: NDArray[np.float32]) -> torch.Tensor:
    """Copy: the arrays may be views of a read-only file."""
    return torch.from_numpy(np.array(array, dtype=np.float32))


def changed_norm(deltas: SiteOps, shared: NormWeights) -> NormWeights:
    """Return shared plus delta; what has no delta is the shared tensor itself."""
    weight, bias = shared
    if deltas.norm_weight is not None:
        weight = weight + as_tensor(deltas.norm_weight)
    if deltas.norm_bias is not None:
        bias = bias + as_tensor(deltas.norm_bias)
    return NormWeights(weight, bias)
