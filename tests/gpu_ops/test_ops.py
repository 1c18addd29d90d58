"""Every reference op against the plain formula in float64, over nasty sizes and span layouts."""

from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

from gpu_ops.bias import add_bias_
from gpu_ops.bottleneck import BottleneckWeights, add_bottleneck_
from gpu_ops.compacter import KroneckerFactors, whole_weight
from gpu_ops.layer_norm import NormDeltas, NormWeights, add_layer_norm, changed_norm
from gpu_ops.low_rank import LowRankFactors, UpFactor, add_low_rank_
from gpu_ops.pooling import first_token_pool, mean_pool
from gpu_ops.ragged_head import HeadWeights, ragged_head
from gpu_ops.scale import scale_
from gpu_ops.spans import Span
from gpu_ops.sparse_delta import (
    add_sparse_delta_,
    changed_values,
    patch_weight,
    sparse_weights,
)
from gpu_ops.task_products import PLAIN_PRODUCTS, TaskProducts
from gpu_ops.varlen_attention import varlen_attention

TOLERANCE = 2e-5
NUM_IN, NUM_OUT = 24, 40

LAYOUTS = {
    "one": (5, [Span(0, 5)]),
    "single rows": (4, [Span(0, 1), Span(1, 2), Span(3, 4)]),
    "gaps": (133, [Span(2, 9), Span(31, 64), Span(64, 97)]),
    "whole": (64, [Span(0, 31), Span(31, 33), Span(33, 64)]),
    "none": (7, []),
}
"""Name -> number of rows, spans."""


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> tuple[int, list[Span]]:
    """Each layout in turn."""
    return LAYOUTS[request.param]


def normal(*size: int, seed: int = 0) -> torch.Tensor:
    """Random values."""
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def by_spans(
    y: torch.Tensor, spans: list[Span], change: Callable[[int, torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """Return `y` in float64 with `change(number, rows)` in each span."""
    expected = y.double().clone()
    for number, span in enumerate(spans):
        expected[span.start : span.end] = change(number, expected[span.start : span.end].clone())
    return expected


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Compare in float64."""
    assert found.shape == expected.shape
    torch.testing.assert_close(found.double(), expected, rtol=TOLERANCE, atol=TOLERANCE)


def test_bias_and_scale(layout: tuple[int, list[Span]]) -> None:
    """Y += b_t and y *= s_t, in place and in the spans only."""
    rows, spans = layout
    vectors = [normal(NUM_OUT, seed=i) for i in range(len(spans))]
    y = normal(rows, NUM_OUT)
    biased, scaled = y.clone(), y.clone()

    add_bias_(biased, spans, vectors)
    scale_(scaled, spans, vectors)

    assert_close(biased, by_spans(y, spans, lambda i, part: part + vectors[i].double()))
    assert_close(scaled, by_spans(y, spans, lambda i, part: part * vectors[i].double()))


@pytest.mark.parametrize("products", [PLAIN_PRODUCTS, TaskProducts(F.linear, 3)])
def test_low_rank(layout: tuple[int, list[Span]], products: TaskProducts) -> None:
    """Ranks may differ from task to task; up factors write to their own outputs."""
    rows, spans = layout
    x, y = normal(rows, NUM_IN), normal(rows, NUM_OUT, seed=1)
    half = NUM_OUT // 2
    factors = [
        LowRankFactors(
            normal(3 + i, NUM_IN, seed=i),
            (
                UpFactor(0, half, normal(half, 2, seed=9 + i)),
                UpFactor(2, 0, normal(half, 1 + i, seed=19 + i)),
            ),
        )
        for i in range(len(spans))
    ]

    def formula(i: int, part: torch.Tensor) -> torch.Tensor:
        down, (right, left) = factors[i].down.double(), factors[i].ups
        inner = x[spans[i].start : spans[i].end].double() @ down.t()
        update_left = inner[:, 2:] @ left.weight.double().t()
        return part + torch.cat([update_left, inner[:, :2] @ right.weight.double().t()], dim=1)

    expected = by_spans(y, spans, formula)

    add_low_rank_(y, x, spans, factors, products)

    assert_close(y, expected)


@pytest.mark.parametrize("products", [PLAIN_PRODUCTS, TaskProducts(F.linear, 3)])
@pytest.mark.parametrize("activation", ["gelu", "relu"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_bottleneck(
    layout: tuple[int, list[Span]], activation: str, products: TaskProducts, dtype: torch.dtype
) -> None:
    """With its residual, and widths that may differ."""
    rows, spans = layout
    h = normal(rows, NUM_OUT)
    act = F.gelu if activation == "gelu" else F.relu
    adapters = [
        BottleneckWeights(
            normal(3 + i, NUM_OUT, seed=i).to(dtype),
            normal(3 + i, seed=20 + i),
            normal(NUM_OUT, 3 + i, seed=40 + i).to(dtype),
            normal(NUM_OUT, seed=60 + i),
            "gelu" if activation == "gelu" else "relu",
        )
        for i in range(len(spans))
    ]

    def formula(i: int, part: torch.Tensor) -> torch.Tensor:
        a = adapters[i]
        inner = act(part @ a.down_weight.double().t() + a.down_bias.double())
        return part + inner @ a.up_weight.double().t() + a.up_bias.double()

    expected = by_spans(h, spans, formula)

    add_bottleneck_(h, spans, adapters, products)

    assert_close(h, expected)


@pytest.mark.parametrize(
    ("num_in", "density"),
    [(NUM_IN, 0.0), (NUM_IN, 0.01), (NUM_IN, 0.5), (NUM_IN, 1.0), (33_000, 0.001)],
)
@pytest.mark.parametrize("form", ["float32", "float16", "dropped"])
def test_sparse_delta_both_ways(
    layout: tuple[int, list[Span]], density: float, form: str, num_in: int
) -> None:
    """Beside the shared product and patched into a copy of the weight: one answer."""
    rows, spans = layout
    num_out = NUM_OUT if num_in == NUM_IN else 3
    x, weight = normal(rows, num_in) / num_in**0.5, normal(num_out, num_in, seed=1)
    dense = []
    deltas = []
    for i in range(len(spans)):
        generator = torch.Generator().manual_seed(i)
        is_hit = torch.rand(num_out, num_in, generator=generator) < density
        values = -weight if form == "dropped" else normal(num_out, num_in, seed=i)
        if form == "float16":
            values = values.half().float()
        dense.append(values * is_hit)
        flat = is_hit.view(-1).nonzero().view(-1)
        stored = None if form == "dropped" else values.view(-1)[flat]
        if stored is not None and form == "float16":
            stored = stored.half()
        deltas.append(sparse_weights(flat.int(), stored, (num_out, num_in)))
    shared = x @ weight.t()
    expected = by_spans(
        x @ weight.t(),
        spans,
        lambda i, _: (
            x[spans[i].start : spans[i].end].double() @ (weight.double() + dense[i].double()).t()
        ),
    )

    added = [changed_values(delta, weight) for delta in deltas]
    add_sparse_delta_(shared, x, spans, deltas, added)

    assert_close(shared, expected)
    for number, changes in enumerate(deltas):
        patched = patch_weight(weight, changes, torch.empty_like(weight))
        assert_close(patched, weight.double() + dense[number].double())
    assert weight.equal(normal(num_out, num_in, seed=1))


@pytest.mark.parametrize(("num_changed", "dtype"), [(32_767, torch.int16), (32_768, torch.int32)])
def test_row_offsets_are_the_smallest_integers_that_hold_them(
    num_changed: int, dtype: torch.dtype
) -> None:
    """On both sides of the border a change does what its dense form does."""
    shape = (2, 20_000)
    x, weight = normal(3, shape[1]) / shape[1] ** 0.5, normal(*shape, seed=1)
    values = normal(num_changed, seed=2)
    flat = torch.arange(num_changed, dtype=torch.int32)
    dense = torch.zeros(shape)
    dense.view(-1)[:num_changed] = values

    delta = sparse_weights(flat, values, shape)
    y = torch.zeros(3, shape[0])
    add_sparse_delta_(y, x, [Span(0, 3)], [delta], [values])

    assert delta.row_offsets.dtype == dtype
    assert delta.row_offsets.tolist() == [0, 20_000, num_changed]
    assert_close(y, x.double() @ dense.double().t())
    assert patch_weight(weight, delta, torch.empty(shape)).equal(weight + dense)


def test_a_norm_that_a_task_changes_in_part_is_the_shared_one_in_the_rest() -> None:
    """What float16 deltas give is what they give as float32."""
    shared = NormWeights(normal(NUM_OUT), normal(NUM_OUT, seed=1))
    delta = normal(NUM_OUT, seed=2).half()

    weight, bias = changed_norm(shared, NormDeltas(None, delta))

    assert weight is shared.weight
    assert bias.equal(shared.bias + delta.float())


@pytest.mark.parametrize("rank", [None, 1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_compacters_projection_is_a_sum_of_kronecker_products(
    rank: int | None, dtype: torch.dtype
) -> None:
    """Of its rules and its blocks, whole or in two factors."""
    n, num_in, num_out = 4, 24, 40
    rule = normal(n, n, n).to(dtype)
    left = normal(n, num_in // n, rank or num_out // n, seed=1).to(dtype)
    right = None if rank is None else normal(n, rank, num_out // n, seed=2).to(dtype)
    blocks = left.double() if right is None else left.double() @ right.double()
    products = [torch.kron(rule[i].double(), blocks[i]) for i in range(n)]

    found = whole_weight(KroneckerFactors(rule, left, right))

    assert_close(found, torch.stack(products).sum(0).t())


def test_layer_norm(layout: tuple[int, list[Span]]) -> None:
    """Rows in a span have their task's gamma and beta, the others the shared ones."""
    rows, spans = layout
    x, residual = normal(rows, NUM_OUT), normal(rows, NUM_OUT, seed=1)
    shared = NormWeights(normal(NUM_OUT, seed=2), normal(NUM_OUT, seed=3))
    own = [
        NormWeights(normal(NUM_OUT, seed=10 + i), normal(NUM_OUT, seed=30 + i))
        for i in range(len(spans))
    ]
    z = x.double() + residual.double()
    unit = (z - z.mean(1, keepdim=True)) / (z.var(1, unbiased=False, keepdim=True) + 1e-12).sqrt()
    plain = unit * shared.weight.double() + shared.bias.double()
    expected = plain.clone()
    for span, norm in zip(spans, own, strict=True):
        expected[span.start : span.end] = (
            unit[span.start : span.end] * norm.weight.double() + norm.bias.double()
        )

    found = add_layer_norm(x, residual, shared, 1e-12, spans, own)

    assert_close(found, expected)


@pytest.mark.parametrize("row_lens", [[1], [1, 1, 1], [31, 32, 33], [2, 133, 1, 7]])
@pytest.mark.parametrize("num_padding", [0, 5])
@pytest.mark.parametrize("has_bias", [False, True])
def test_varlen_attention(row_lens: list[int], num_padding: int, has_bias: bool) -> None:
    """Each row attends to itself alone; padding is zero and is attended to by nobody."""
    num_heads, hidden = 4, 32
    num_tokens = sum(row_lens) + num_padding
    qkv = normal(num_tokens, 3 * hidden)
    bias = normal(num_heads, 140, 140, seed=1) if has_bias else torch.zeros(num_heads, 140, 140)
    expected = torch.zeros(num_tokens, hidden, dtype=torch.float64)
    start = 0
    for row_len in row_lens:
        rows = qkv[start : start + row_len].double().view(row_len, 3, num_heads, -1)
        for head in range(num_heads):
            q, k, v = rows[:, 0, head], rows[:, 1, head], rows[:, 2, head]
            width = hidden // num_heads
            scores = q @ k.t() / width**0.5 + bias[head, :row_len, :row_len].double()
            weights = torch.softmax(scores, dim=1)
            columns = slice(head * width, (head + 1) * width)
            expected[start : start + row_len, columns] = weights @ v
        start += row_len

    found = varlen_attention(qkv, num_heads, row_lens, bias if has_bias else None)

    assert_close(found, expected)


def test_attention_does_not_see_padding_or_other_rows() -> None:
    """NaN beside a row stays beside it."""
    qkv = normal(12, 96)
    qkv[5:] = torch.nan

    found = varlen_attention(qkv, 4, [5, 4])

    assert found[:5].isfinite().all()
    assert found[5:9].isnan().all()
    assert found[9:].eq(0).all()


@pytest.mark.parametrize("row_lens", [[1], [3, 1, 512], [7] * 33])
def test_pooling(row_lens: list[int]) -> None:
    """Mean over a row's tokens, or its first; tokens behind the last row count for nothing."""
    hidden = normal(sum(row_lens) + 4, NUM_OUT)
    parts = hidden[: sum(row_lens)].double().split(row_lens)  # type: ignore[no-untyped-call]
    starts = [sum(row_lens[:i]) for i in range(len(row_lens))]

    assert_close(mean_pool(hidden, row_lens), torch.stack([part.mean(0) for part in parts]))
    assert_close(first_token_pool(hidden, starts), torch.stack([part[0] for part in parts]))


def test_ragged_head(layout: tuple[int, list[Span]]) -> None:
    """Each task has as many labels as it has."""
    rows, spans = layout
    vectors = normal(rows, NUM_IN)
    heads = [
        HeadWeights(normal(1 + 75 * i, NUM_IN, seed=i), normal(1 + 75 * i, seed=9 + i))
        for i in range(len(spans))
    ]

    found = ragged_head(vectors, spans, heads)

    assert len(found) == len(spans)
    for span, head, logits in zip(spans, heads, found, strict=True):
        part = vectors[span.start : span.end].double()
        assert head.weight is not None
        assert head.bias is not None
        assert_close(logits, part @ head.weight.double().t() + head.bias.double())
