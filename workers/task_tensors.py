"""A task's arrays as torch tensors: what they are held as, and those within its ops."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gpu_ops.layer_norm import NormDeltas
from tasks.site_ops import SiteOps

_ALIGNMENT = 64
"""Bytes, as torch aligns what it allocates."""


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
    """Yield the tensors within a dataclass, tuple or mapping of weights."""
    if isinstance(part, torch.Tensor):
        yield part
    elif is_dataclass(part):
        for field in fields(part):
            yield from tensors_within(getattr(part, field.name))
    elif isinstance(part, tuple):
        for item in part:
            yield from tensors_within(item)
    elif isinstance(part, Mapping):
        yield from tensors_within(tuple(part.values()))


def replaced(part: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:  # noqa: ANN401 - what `tensors_within` takes
    """Return a dataclass, tuple or mapping of weights with each tensor replaced."""
    if isinstance(part, torch.Tensor):
        return change(part)
    if is_dataclass(part) and not isinstance(part, type):
        values = {f.name: replaced(getattr(part, f.name), change) for f in fields(part)}
        return replace(part, **values)
    if isinstance(part, tuple):
        items = [replaced(item, change) for item in part]
        return type(part)(*items) if hasattr(part, "_fields") else tuple(items)
    if isinstance(part, Mapping):
        return {key: replaced(value, change) for key, value in part.items()}
    return part


def in_one_piece(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return copies that lie in one piece of memory, which is freed when the last of them goes.

    A task has some hundred tensors. In a piece each the smallest kinds cost half as much again as
    their contents, by the allocator's and torch's own accounts of each; so they cost a quarter.
    """
    starts = [0]
    for tensor in tensors:
        starts.append(starts[-1] + -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT)
    piece = torch.empty(starts[-1], dtype=torch.uint8).untyped_storage()
    copies = []
    for tensor, start in zip(tensors, starts, strict=False):
        contents = tensor.contiguous()
        # Not a view: one keeps an account of what it is a view of.
        copy = torch.empty(0, dtype=tensor.dtype).set_(
            piece, start // tensor.element_size(), contents.shape, contents.stride()
        )
        copies.append(copy.copy_(contents))
    return copies
