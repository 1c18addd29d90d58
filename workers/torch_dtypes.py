"""Torch's types of the precisions, and how types are named in figures."""

from collections.abc import Mapping

import torch

from workers.precision import Precision

TORCH_DTYPES: Mapping[Precision, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
}


def dtype_name(dtype: torch.dtype) -> str:
    """Return a type's name without torch's prefix."""
    return str(dtype).removeprefix("torch.")
