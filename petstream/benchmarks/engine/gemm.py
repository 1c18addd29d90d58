"""The machine's ceiling: one large float32 product of oneDNN, its weight packed beforehand."""

from collections.abc import Callable

import torch

ROWS, OUT, IN = 2048, 3072, 768
"""BERT-base's largest product, at more rows than any slice of the engine has."""
GIGAFLOP = 2 * ROWS * OUT * IN / 1e9


def product_of_ceiling(threads: int) -> Callable[[], None]:
    """Return the product; each call makes it once."""
    x, bias = torch.randn(ROWS, IN), torch.randn(OUT)
    packed = torch.ops.mkldnn._reorder_linear_weight(torch.randn(OUT, IN), ROWS)

    def run() -> None:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")

    return run
