"""The products that all tasks share: each back end's time beside the compiled product's.

    python benchmarks/bench_products.py [--json] [--repeats 9]

For each shape of MiniLM-L6 and BERT-base and several numbers of rows, float32, on one thread, in
its CPU time; the back ends run in turns, and figures are ratios of their least times. `masks` and
`diffs`: the compiled product where every 64 rows are a task's, with 5 % of the weights dropped or
0.5 % added to; `patched`: the masks by way of a copy of the weight that takes on one after the
other, and a product of each task's rows.
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from gpu_ops.compiled.library import load
from gpu_ops.compiled.product import CompiledProduct
from gpu_ops.compiled.sparse_delta import CompiledSparseDelta
from gpu_ops.spans import Span
from gpu_ops.sparse_delta import SparseWeights, sparse_weights
from petstream.benchmarks.document import make_document
from workers.linear_backends import right_back_ends
from workers.way_timing import least_us

SHAPES = (
    *((1152, 384), (384, 384), (1536, 384), (384, 1536)),
    *((2304, 768), (768, 768), (3072, 768), (768, 3072)),
)
"""(out, in): query, key and value; attention output; both of the feed-forward layer."""
NUM_ROWS = (16, 64, 256, 1024)
TASK_ROWS = 64
MASK, DIFF = 0.05, 0.005
"""Shares of the weight that they change."""


def ways(num_out: int, num_in: int, num_rows: int) -> dict[str, Callable[[], object]]:
    """Return every way to one product, by name."""
    library = load()
    assert library is not None, "not compiled: run `python -m gpu_ops.compiled.build`"
    compiled, patch = CompiledProduct(library), CompiledSparseDelta(library).patch_weight
    weight, bias = torch.randn(num_out, num_in) / num_in**0.5, torch.randn(num_out)
    x, packed = torch.randn(num_rows, num_in), compiled.packed(weight, bias)
    starts = range(0, num_rows, TASK_ROWS)
    spans = [Span(start, min(start + TASK_ROWS, num_rows)) for start in starts]
    masks, diffs = (
        [change(weight, share, number) for number in range(len(spans))] for share in (MASK, DIFF)
    )
    copy = torch.empty_like(weight)

    def patched() -> None:
        for (start, end), mask in zip(spans, masks, strict=True):
            compiled(x[start:end], patch(weight, mask, copy), bias)

    back_ends = right_back_ends(weight, bias, compiled)
    return {
        **{str(name): partial(linear, x) for name, linear in back_ends.items()},
        "masks": partial(packed.with_changes, x, spans, masks),
        "diffs": partial(packed.with_changes, x, spans, diffs),
        "patched": patched,
    }


def change(weight: torch.Tensor, share: float, number: int) -> SparseWeights:
    """Return a task's change of some of the weights, evenly spread; a mask if it is of a mask's.

    Args:
        weight: Shape (out, in).
        share: Of the weights.
        number: The task's; others change other weights.
    """
    step = round(1 / share)
    places = torch.arange(number % step, weight.numel(), step, dtype=torch.int32)
    values = None if share == MASK else torch.ones(len(places), dtype=torch.float16)
    return sparse_weights(places, values, (len(weight), weight.shape[1]))


def main() -> None:
    """Print the figures for people, or one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for num_out, num_in in SHAPES:
        for num_rows in NUM_ROWS:
            us = least_us(ways(num_out, num_in, num_rows), options.repeats)
            ratios = {name: us[name] / us["compiled-packed"] for name in us}
            gigaflops = 2 * num_out * num_in * num_rows / us["compiled-packed"] / 1e3
            rows.append(
                {
                    **{"out": num_out, "in": num_in, "rows": num_rows},
                    **{"gigaflops_compiled_packed": gigaflops, "over_compiled_packed": ratios},
                }
            )
            if not options.json:
                shown = ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items())
                print(f"{num_out}x{num_in}, {num_rows} rows: {gigaflops:.0f} GFLOP/s; {shown}")
    if options.json:
        print(json.dumps(make_document(rows, []), indent=2))


if __name__ == "__main__":
    main()
