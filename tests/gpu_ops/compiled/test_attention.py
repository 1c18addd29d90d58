"""Compiled attention against torch's operator in float64."""

import pytest
import torch

from gpu_ops.compiled.attention import CompiledAttention
from gpu_ops.compiled.library import Library
from gpu_ops.varlen_attention import PrefixStates, varlen_attention
from tests.gpu_ops.compiled.conftest import assert_close, normal

ROWS = {
    "one token": [1],
    "single tokens": [1, 1, 1],
    "around a vector": [7, 8, 9, 15, 16, 17, 31, 32, 33],
    "all remainders of a tile": list(range(1, 14)),
    "longest": [512, 3],
}


@pytest.mark.parametrize(
    ("num_heads", "width", "num_padding"),
    [(1, 32, 13), (6, 64, 0), (12, 32, 3), (2, 48, 1), (3, 16, 0)],
    ids=["one_head", "wide_heads", "twelve_heads", "width_48", "width_16"],
)
@pytest.mark.parametrize("row_lens", ROWS.values(), ids=ROWS)
def test_each_row_attends_to_itself(
    library: Library,
    dtype: torch.dtype,
    row_lens: list[int],
    num_heads: int,
    width: int,
    num_padding: int,
) -> None:
    """Padding is zero."""
    qkv = normal(sum(row_lens) + num_padding, 3 * num_heads * width).to(dtype)

    found = CompiledAttention(library)(qkv, num_heads, row_lens)

    assert found.dtype == dtype
    assert_close(found, varlen_attention(qkv.double(), num_heads, row_lens))


@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("num_virtual", [1, 7, 16, 30])
def test_rows_see_their_prefix_and_the_bias_of_their_own_keys(
    library: Library, dtype: torch.dtype, num_virtual: int, has_bias: bool
) -> None:
    """Some rows have a prefix and some none; a prefix has no bias."""
    num_heads, width, row_lens = 3, 32, [5, 1, 33, 16]
    qkv = normal(sum(row_lens), 3 * num_heads * width).to(dtype)
    bias = normal(num_heads, 40, 40, seed=1) if has_bias else None
    prefixes = {
        row: PrefixStates(*normal(2, num_virtual + row, num_heads * width, seed=row))
        for row in (1, 2)
    }
    wide = {
        row: PrefixStates(states.keys.double(), states.values.double())
        for row, states in prefixes.items()
    }
    expected = varlen_attention(
        qkv.double(), num_heads, row_lens, None if bias is None else bias.double(), wide
    )

    found = CompiledAttention(library)(qkv, num_heads, row_lens, bias, prefixes)

    assert_close(found, expected)


def test_a_bias_may_lie_in_memory_in_any_order(library: Library) -> None:
    """That of MPNet is a view."""
    qkv, square = normal(9, 3 * 64), normal(9, 9, 2)
    expected = varlen_attention(qkv.double(), 2, [9], square.double().permute(2, 0, 1))

    assert_close(CompiledAttention(library)(qkv, 2, [9], square.permute(2, 0, 1)), expected)


@pytest.mark.parametrize(
    ("row_lens", "bias", "said"),
    [
        ([5, 5], None, "rows of 9 tokens"),
        ([5, 4], (2, 4, 4), r"a bias of \(2, 5, 5\) or more, got \(2, 4, 4\)"),
        ([5, 4], (1, 8, 8), r"a bias of \(2, 5, 5\) or more, got \(1, 8, 8\)"),
        ([5, 4], (2, 8, 4), r"a bias of \(2, 5, 5\) or more, got \(2, 8, 4\)"),
    ],
)
def test_what_would_be_read_past_its_end_is_refused(
    library: Library, row_lens: list[int], bias: tuple[int, int, int] | None, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        CompiledAttention(library)(
            normal(9, 3 * 64), 2, row_lens, None if bias is None else normal(*bias)
        )


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-20, 30.0, 1e3])
def test_scores_may_be_tiny_or_huge(library: Library, scale: float) -> None:
    """From denormal products to a softmax that is a choice of one."""
    qkv = normal(19, 3 * 32)
    qkv[:, :32] *= scale

    found = CompiledAttention(library)(qkv, 1, [19])

    # What float32 loses of a score is multiplied by the score itself.
    assert_close(found, varlen_attention(qkv.double(), 1, [19]), max(2e-5, 1e-5 * scale))


def test_scores_far_below_zero_are_weighed_as_those_above(library: Library) -> None:
    """Lanes behind the last key, which would be 0, count for nothing."""
    qkv = torch.ones(5, 3 * 16)
    qkv[:, 16:32] = -1000.0
    qkv[:, 32:] = normal(5, 16)

    assert_close(
        CompiledAttention(library)(qkv, 1, [5]), qkv[:, 32:].double().mean(0).expand(5, -1)
    )


def test_nan_stays_in_its_row(library: Library, dtype: torch.dtype) -> None:
    """Also beside rows that share its vectors, and from the padding."""
    qkv = normal(40, 3 * 64).to(dtype)
    expected = varlen_attention(qkv.double(), 2, [13, 4, 9])
    qkv[13:17] = torch.nan
    qkv[26:] = torch.nan

    found = CompiledAttention(library)(qkv, 2, [13, 4, 9])

    assert_close(found[:13], expected[:13])
    assert found[13:17].isnan().all()
    assert_close(found[17:26], expected[17:26])
    assert found[26:].eq(0).all()


@pytest.mark.parametrize("part", [0, 1, 2], ids=["query", "key", "value"])
def test_a_nan_reaches_what_sees_it(library: Library, part: int) -> None:
    """A query's its own token, a key's or a value's all tokens of the row."""
    qkv = normal(10, 3 * 32)
    qkv[3, part * 32] = torch.nan

    found = CompiledAttention(library)(qkv, 1, [10])

    expected = varlen_attention(qkv.double(), 1, [10])
    assert found.isnan().equal(expected.isnan())


def test_overflowing_scores_give_nan(library: Library) -> None:
    """As in torch: infinity less infinity."""
    qkv = normal(6, 3 * 32)
    qkv[:, :64] = 3e38

    assert CompiledAttention(library)(qkv, 1, [6]).isnan().all()


def test_what_it_would_read_wrongly_is_refused(library: Library) -> None:
    """Heads of a width that is no multiple of 16, and views."""
    attend = CompiledAttention(library)

    with pytest.raises(ValueError, match="multiple of 16"):
        attend(normal(4, 72), 1, [4])
    with pytest.raises(ValueError, match="contiguous"):
        attend(normal(96, 4).t(), 1, [4])
