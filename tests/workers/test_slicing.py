"""Slices: every row once, in order, about equally large."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.slicing import cut_into_slices


@given(
    row_lens=st.lists(st.integers(1, 512), max_size=200),
    num_threads=st.integers(1, 9),
    max_tokens=st.integers(1, 4096),
)
def test_slices_are_a_partition(row_lens: list[int], num_threads: int, max_tokens: int) -> None:
    """Every row is in exactly one slice, in order; no slice is empty."""
    slices = cut_into_slices(row_lens, num_threads, max_tokens)

    assert [row for part in slices for row in part] == list(range(len(row_lens)))
    assert all(slices)


@given(
    row_lens=st.lists(st.integers(1, 64), min_size=40, max_size=200),
    num_threads=st.integers(1, 4),
    max_tokens=st.integers(256, 2048),
)
def test_slices_are_about_equal(row_lens: list[int], num_threads: int, max_tokens: int) -> None:
    """None is larger than its share of the tokens by more than one row."""
    slices = cut_into_slices(row_lens, num_threads, max_tokens)

    sizes = [sum(row_lens[row] for row in part) for part in slices]
    assert max(sizes) <= sum(row_lens) / len(slices) + max(row_lens)
    assert max(sizes) <= max_tokens + max(row_lens)


@pytest.mark.parametrize(
    ("num_rows", "num_threads", "expected"), [(1, 4, 1), (3, 4, 3), (4, 4, 4), (400, 4, 4)]
)
def test_every_thread_has_work_where_there_are_rows(
    num_rows: int, num_threads: int, expected: int
) -> None:
    """As many slices as threads, or as rows."""
    assert len(cut_into_slices([10] * num_rows, num_threads, 4000)) == expected


def test_a_large_batch_gives_each_thread_equally_many_slices() -> None:
    """A multiple of the threads, so that they finish together."""
    assert len(cut_into_slices([100] * 100, 4, 1000)) == 12


@pytest.mark.parametrize(
    ("num_rows", "expected"), [(2, 1), (6, 1), (7, 2), (12, 3), (13, 4), (40, 4)]
)
def test_few_tokens_are_few_slices(num_rows: int, expected: int) -> None:
    """None much smaller than what pays for a thread."""
    assert len(cut_into_slices([10] * num_rows, 4, 1000, 32)) == expected


def test_no_rows_give_no_slices() -> None:
    """Nothing to run."""
    assert cut_into_slices([], 4, 1000) == []
