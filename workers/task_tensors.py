"""A task's arrays as torch tensors: what they are held as, and those within its ops."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from gpu_ops.layer_norm import NormDeltas
from tasks.site_ops import SiteOps


def as_tensor(array: NDArray[np.float32]) -> torch.Tensor:
    """Copy: the arrays may be views of a read-only file."""
    return torch.from_numpy(np.array(array, dtype=np.float32))


def narrowed(values: torch.Tensor) -> torch.Tensor:
    """Return the values as float16 where that loses nothing, as with those of a float16 file."""
    narrow = values.to(torch.float16)
    return narrow if narrow.to(values.dtype).equal(values) else values


def narrow_tensor(array: NDArray[np.float32]) -> torch.Tensor:
    """Copy, as float16 where that loses nothing."""
    return narrowed(as_tensor(array))


def norm_deltas(ops: SiteOps) -> NormDeltas:
    """Return what a task adds to a LayerNorm."""
    weight, bias = ops.norm_weight, ops.norm_bias
    return NormDeltas(
        None if weight is None else narrow_tensor(weight),
        None if bias is None else narrow_tensor(bias),
    )


def tensors_within(part: object) -> Iterator[torch.Tensor]:
    """Yield the tensors within a dataclass or tuple of weights."""
    if isinstance(part, torch.Tensor):
        yield part
    elif is_dataclass(part):
        for field in fields(part):
            yield from tensors_within(getattr(part, field.name))
    elif isinstance(part, tuple):
        for item in part:
            yield from tensors_within(item)
