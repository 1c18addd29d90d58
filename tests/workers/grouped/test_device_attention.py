"""Attention of whole batches, padded, against row by row."""

import itertools
import math
from collections.abc import Sequence

import pytest
import torch

import workers.grouped.packed_rows as packed_rows
from gpu_ops.varlen_attention import PrefixStates, varlen_attention
from tests.workers.grouped.ways import cuda
from workers.grouped.device_attention import device_attention, fits_kernel, padded_attention
from workers.grouped.packed_rows import PackedRows, alike

CPU = torch.device("cpu")
HEADS, WIDTH = 3, 8
HIDDEN = HEADS * WIDTH
ROW_LENS = (5, 1, 12, 2, 7)
NUM_PADDING = 5
TOLERANCES = {torch.float32: 2e-6, torch.bfloat16: 2e-2}


def normal(*size: int, seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Random values."""
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed)).to(dtype)


def batch(
    row_lens: Sequence[int], num_padding: int, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, PackedRows]:
    """Return random queries, keys and values, and where their rows lie."""
    num_tokens = sum(row_lens) + num_padding
    return normal(num_tokens, 3 * HIDDEN, seed=0, dtype=dtype), PackedRows(
        row_lens, num_tokens, CPU
    )


def prefix(num_virtual: int, seed: int, dtype: torch.dtype = torch.float32) -> PrefixStates:
    """Return random keys and values."""
    return PrefixStates(
        normal(num_virtual, HIDDEN, seed=seed, dtype=dtype),
        normal(num_virtual, HIDDEN, seed=seed + 1, dtype=dtype),
    )


@pytest.fixture(params=[1 << 15, 24, 1], ids=["one rectangle", "several", "a row each"])
def max_tokens(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """What a rectangle may have."""
    limit: int = request.param
    monkeypatch.setattr(packed_rows, "RECTANGLE_TOKENS", limit)
    return limit


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("has_bias", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize("prefixed", [(), (0,), (1, 2, 4)], ids=["none", "one", "some"])
@pytest.mark.usefixtures("max_tokens")
def test_rows_attend_as_one_by_one(
    dtype: torch.dtype, has_bias: bool, prefixed: tuple[int, ...]
) -> None:
    """With a bias or none, behind prefixes of different lengths or none, in any rectangles."""
    qkv, rows = batch(ROW_LENS, NUM_PADDING, dtype)
    bias = normal(HEADS, 16, 16, seed=3) if has_bias else None
    prefixes = {row: prefix(1 + 2 * row, 10 * row + 5, dtype) for row in prefixed}

    found = padded_attention(qkv, HEADS, rows, bias, prefixes)

    expected = varlen_attention(qkv, HEADS, ROW_LENS, bias, prefixes)
    assert (found - expected).abs().max() < TOLERANCES[dtype]
    assert not found[sum(ROW_LENS) :].any()


@pytest.mark.parametrize(
    ("head_width", "dtype", "fits"),
    [
        (32, torch.bfloat16, True),
        (256, torch.float16, True),
        (26, torch.bfloat16, False),
        (264, torch.bfloat16, False),
        (32, torch.float32, False),
    ],
)
def test_what_the_kernel_knows(head_width: int, dtype: torch.dtype, fits: bool) -> None:
    """Two-byte types, and heads in packs of 16 bytes up to 256 values."""
    qkv = torch.empty(2, 3 * 12 * head_width, dtype=dtype)

    assert fits_kernel(qkv, 12) == fits


@pytest.mark.gpu
@pytest.mark.parametrize("head_width", [32, 26])
@pytest.mark.parametrize("num_padding", [0, 5])
def test_the_kernel_attends_as_row_by_row(head_width: int, num_padding: int) -> None:
    """And where there is none for the width of the heads, padding does."""
    num_tokens = sum(ROW_LENS) + num_padding
    qkv = normal(num_tokens, 9 * head_width, seed=0, dtype=torch.bfloat16)
    device = cuda()

    found = device_attention(qkv.to(device), 3, PackedRows(ROW_LENS, num_tokens, device))

    expected = varlen_attention(qkv, 3, ROW_LENS)[: sum(ROW_LENS)]
    assert found.is_contiguous()
    assert (found[: sum(ROW_LENS)].cpu() - expected).abs().max() < TOLERANCES[torch.bfloat16]


def test_what_the_kernel_does_not_know_is_padded() -> None:
    """On the CPU all is: the plain call gives the same."""
    qkv, rows = batch(ROW_LENS, 0)

    found = device_attention(qkv, HEADS, rows)

    assert torch.equal(found, padded_attention(qkv, HEADS, rows, None, {}))


@pytest.mark.parametrize("broken", range(len(ROW_LENS)))
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.usefixtures("max_tokens")
def test_what_is_not_finite_stays_in_its_row(broken: int, value: float) -> None:
    """And neither padding nor a neighbour's prefix takes it further."""
    qkv, rows = batch(ROW_LENS, NUM_PADDING)
    prefixes = {(broken + 1) % len(ROW_LENS): prefix(4, 8)}
    expected = padded_attention(qkv, HEADS, rows, None, prefixes)
    start = sum(ROW_LENS[:broken])
    own = slice(start, start + ROW_LENS[broken])
    qkv[own] = value

    found = padded_attention(qkv, HEADS, rows, None, prefixes)

    assert found[own].isnan().any()
    assert torch.equal(found[: own.start], expected[: own.start])
    assert torch.equal(found[own.stop :], expected[own.stop :])


def test_padding_that_is_not_finite_reaches_no_row() -> None:
    """Tokens past the last row."""
    qkv, rows = batch(ROW_LENS, NUM_PADDING)
    expected = padded_attention(qkv, HEADS, rows, None, {})
    qkv[sum(ROW_LENS) :] = math.nan

    assert torch.equal(padded_attention(qkv, HEADS, rows, None, {}), expected)


def test_a_prefix_that_is_not_finite_reaches_its_row_alone() -> None:
    """A longer prefix beside it has room for it in every row's keys."""
    qkv, rows = batch(ROW_LENS, 0)
    prefixes = {0: prefix(3, 5), 2: prefix(9, 7)}
    expected = padded_attention(qkv, HEADS, rows, None, prefixes)
    prefixes[2].values[8] = math.nan

    found = padded_attention(qkv, HEADS, rows, None, prefixes)

    own = slice(sum(ROW_LENS[:2]), sum(ROW_LENS[:3]))
    assert found[own].isnan().all()
    assert torch.equal(found[: own.start], expected[: own.start])
    assert torch.equal(found[own.stop :], expected[own.stop :])


@pytest.mark.parametrize(
    ("row_lens", "max_tokens", "groups"),
    [
        ((3, 9, 1, 9), 18, [[1, 3], [0, 2]]),
        ((3, 9, 1, 9), 36, [[1, 3, 0, 2]]),
        ((3, 9, 1, 9), 35, [[1, 3, 0], [2]]),
        ((3, 9), 8, [[1], [0]]),
        ((4,), 1, [[0]]),
    ],
)
def test_rows_of_like_lengths_share_a_rectangle(
    row_lens: tuple[int, ...], max_tokens: int, groups: list[list[int]]
) -> None:
    """The longest first, as many as there is room for; one that is too long is alone."""
    assert alike(row_lens, max_tokens) == groups


def test_one_long_row_among_many_short_ones_takes_little() -> None:
    """All in one rectangle would have 800 thousand tokens."""
    row_lens = [512, *itertools.repeat(8, 1600)]

    sizes = [
        rectangle.tokens.numel() for rectangle in PackedRows(row_lens, 13312, CPU).rectangles()
    ]

    assert max(sizes) <= packed_rows.RECTANGLE_TOKENS
    assert sum(sizes) < 4 * sum(row_lens)
