"""A library's adapters get a case's weights."""

from collections.abc import Iterable

import torch
from torch import nn


def fill(model: nn.Module, tensors: Iterable[tuple[str, torch.Tensor]], dtype: torch.dtype) -> int:
    """Copy tensors into parameters and make the model ready to run.

    Args:
        model: With the tasks' adapters.
        tensors: By the names of the parameters.
        dtype: What the whole model runs in.

    Returns:
        Bytes of the tensors in that type.
    """
    parameters = dict(model.named_parameters())
    num_bytes = 0
    with torch.no_grad():
        for name, values in tensors:
            parameters[name].copy_(values)
            num_bytes += values.numel() * dtype.itemsize
    model.to(dtype)
    model.train(False)
    return num_bytes
