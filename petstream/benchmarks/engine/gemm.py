"""The machine's ceiling: one large product of oneDNN, its weight packed beforehand."""

from collections.abc import Callable

import torch
from torch.nn import functional as F

from petstream.benchmarks.engine.cases import Dtype

ROWS, OUT, IN = 2048, 3072, 768
"""BERT-base's largest product, at more rows than any slice of the engine has."""
GIGAFLOP = 2 * ROWS * OUT * IN / 1e9


def product_of_ceiling(threads: int, dtype: Dtype) -> Callable[[], None]:
    """Return the product; each call makes it once.

    In bfloat16 on a processor that oneDNN has no such product for, it is torch's own.
    """
    kind = getattr(torch, dtype)
    x, weight, bias = (torch.randn(*size).to(kind) for size in ((ROWS, IN), (OUT, IN), (OUT,)))
    if dtype == "float32" or torch.ops.mkldnn._is_mkldnn_bf16_supported():
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, ROWS)

        def multiply() -> torch.Tensor:
            product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
                x, packed, bias, "none", [], ""
            )
            return product
    else:

        def multiply() -> torch.Tensor:
            return F.linear(x, weight, bias)

    def run() -> None:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            multiply()

    return run
