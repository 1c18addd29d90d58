"""Every kernel file, and all of its kernels compiled ahead of their first use.

A first use takes a fraction of a second for each kernel on a machine that has not compiled it yet,
which a service would rather spend before it is ready; and none may happen inside a CUDA graph.
"""

import torch

from gpu_ops.grouped import (
    bias_gelu,
    bottleneck,
    layer_norm,
    low_rank,
    masked_product,
    ragged_head,
    scale,
    sparse_delta,
)
from gpu_ops.grouped.kernel_file import KernelFile, Kernels

FILES: tuple[KernelFile, ...] = (
    bias_gelu.FILE,
    bottleneck.FILE,
    layer_norm.FILE,
    low_rank.FILE,
    masked_product.FILE,
    ragged_head.FILE,
    scale.FILE,
    sparse_delta.FILE,
)


def compile_kernels(kernels: Kernels, dtype: torch.dtype) -> None:
    """Compile every kernel of a type, and heads in float32.

    Raises:
        TypeError: If there are none for `dtype`.
    """
    for file in FILES:
        of_file = torch.float32 if file is ragged_head.FILE else dtype
        for template in file.templates:
            kernels.get(file, file.name_of(template, of_file))
