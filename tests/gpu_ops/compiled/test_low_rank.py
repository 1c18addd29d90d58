"""Compiled low-rank updates against the formula in float64."""

import pytest
import torch

from gpu_ops.compiled.library import Library
from gpu_ops.compiled.low_rank import CompiledLowRank
from gpu_ops.low_rank import LowRankFactors, UpFactor
from gpu_ops.row_gate import GateWeights
from gpu_ops.spans import Span
from tests.gpu_ops.compiled.conftest import assert_close, normal

LAYOUTS = {
    "one": (5, [Span(0, 5)]),
    "single rows": (4, [Span(0, 1), Span(1, 2), Span(3, 4)]),
    "gaps": (133, [Span(2, 9), Span(31, 64), Span(64, 97)]),
    "none": (7, []),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("held", [torch.float32, torch.float16], ids=["held-f32", "held-f16"])
@pytest.mark.parametrize(("num_in", "num_out", "rank"), [(384, 1152, 8), (40, 56, 3), (9, 7, 1)])
def test_each_task_s_rows_get_its_update(
    library: Library,
    dtype: torch.dtype,
    layout: str,
    held: torch.dtype,
    num_in: int,
    num_out: int,
    rank: int,
) -> None:
    """Two parts of ranks of their own, each where its outputs are; other rows keep theirs."""
    rows, spans = LAYOUTS[layout]
    x, y = normal(rows, num_in).to(dtype), normal(rows, num_out, seed=1).to(dtype)
    half = num_out // 2
    factors = [
        LowRankFactors(
            (normal(2 * rank + i, num_in, seed=i) / num_in**0.5).to(held),
            (
                UpFactor(0, half, normal(half, rank, seed=9 + i).to(held)),
                UpFactor(rank, 0, normal(half - 1, rank + i, seed=19 + i).to(held)),
            ),
        )
        for i in range(len(spans))
    ]
    expected = y.double()
    for (start, end), task in zip(spans, factors, strict=True):
        inner = x[start:end].double() @ task.down.double().t()
        for first_rank, first_output, up, _ in task.ups:
            ranks = inner[:, first_rank : first_rank + up.shape[1]]
            outputs = slice(first_output, first_output + up.shape[0])
            expected[start:end, outputs] += ranks @ up.double().t()

    CompiledLowRank(library)(y, x, spans, factors)

    assert_close(y, expected)


def test_what_it_does_not_compute_it_says(library: Library) -> None:
    """Gates, and more parts than it has room for."""
    down, up = torch.ones(1, 4), torch.ones(4, 1)
    gate = GateWeights(torch.ones(4), torch.ones(1))
    compiled = CompiledLowRank(library)

    assert compiled.takes(LowRankFactors(down, (UpFactor(0, 0, up),) * 3))
    assert not compiled.takes(LowRankFactors(down, (UpFactor(0, 0, up, gate),)))
    assert not compiled.takes(LowRankFactors(down, (UpFactor(0, 0, up),) * 9))


def test_up_factors_of_two_types_are_one_call(library: Library) -> None:
    """They are narrowed one by one, so that one may be float32 beside another of float16."""
    ups = (UpFactor(0, 0, torch.ones(4, 1).half()), UpFactor(0, 4, torch.full((4, 1), 2.0)))
    y, x = torch.zeros(3, 8), torch.ones(3, 4)

    CompiledLowRank(library)(y, x, [Span(0, 3)], [LowRankFactors(torch.ones(1, 4), ups)])

    assert y.tolist() == [[4.0] * 4 + [8.0] * 4] * 3


def test_nan_stays_in_its_row(library: Library, dtype: torch.dtype) -> None:
    x, y = normal(9, 24).to(dtype), torch.zeros(9, 16, dtype=dtype)
    x[4, 3] = torch.nan
    factors = LowRankFactors(normal(2, 24), (UpFactor(0, 0, normal(16, 2)),))

    CompiledLowRank(library)(y, x, [Span(0, 9)], [factors])

    assert y.isnan().any(dim=1).tolist() == [row == 4 for row in range(9)]
