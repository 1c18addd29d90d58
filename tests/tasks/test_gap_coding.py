"""Gap coding: one code per set of positions, one byte per close position, no trust in bytes."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.gap_coding import GapCodeError, decode_gaps, encode_gaps, max_gap_bytes


@pytest.mark.parametrize(
    ("positions", "code"),
    [
        ([], []),
        ([0], [0]),
        ([0, 1, 2], [0, 0, 0]),
        ([3, 5], [3, 1]),
        ([254], [254]),
        ([255], [255, 0]),
        ([256], [255, 1]),
        ([509], [255, 254]),
        ([510], [255, 255, 0]),
        ([0, 256, 600], [0, 255, 0, 255, 88]),
    ],
)
def test_code_is_the_documented_one(positions: list[int], code: list[int]) -> None:
    """Frozen bytes: artifacts in the field are read by these rules."""
    assert encode_gaps(np.array(positions, np.int64), 1000).tolist() == code
    assert decode_gaps(np.array(code, np.uint8), 1000).tolist() == positions


@given(st.sets(st.integers(0, 5000)), st.integers(0, 3000))
def test_decoding_inverts_encoding(positions: set[int], slack: int) -> None:
    """Any set of positions comes back, whatever its density."""
    ascending = np.array(sorted(positions), np.int64)
    num_items = 5001 + slack

    code = encode_gaps(ascending, num_items)
    decoded = decode_gaps(code, num_items)

    assert decoded.tolist() == sorted(positions)
    assert decoded.dtype == np.int32
    assert code.size <= max_gap_bytes(num_items)


@given(st.binary(max_size=40), st.integers(1, 3000))
def test_any_bytes_are_a_code_in_its_only_form_or_refused(raw: bytes, num_items: int) -> None:
    """Decoding raises nothing but its error, and what it accepts encodes to the same bytes."""
    code = np.frombuffer(raw, np.uint8)
    try:
        positions = decode_gaps(code, num_items)
    except GapCodeError:
        return
    assert positions.size == 0 or 0 <= positions[0] <= positions[-1] < num_items
    assert (np.diff(positions) > 0).all()
    assert encode_gaps(positions, num_items).tobytes() == raw


def test_different_sets_have_different_codes() -> None:
    """All 256 subsets of 8 positions, exhaustively."""
    subsets = [s for size in range(9) for s in combinations(range(8), size)]

    codes = {encode_gaps(np.array(subset, np.int64), 8).tobytes() for subset in subsets}

    assert len(codes) == 256


def test_no_code_is_longer_than_the_bound() -> None:
    """The bound is reached by the full set, and by nothing exceeded."""
    full = np.arange(700)
    last = np.array([699])

    assert encode_gaps(full, 700).size == max_gap_bytes(700)
    assert encode_gaps(last, 700).size == 3


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint16, np.uint64])
def test_positions_of_any_integer_type_are_coded(dtype: type[np.integer]) -> None:
    """Unsigned differences must not wrap."""
    assert encode_gaps(np.array([7, 300, 301], dtype), 302).tolist() == [7, 255, 37, 0]


@pytest.mark.parametrize(
    "positions",
    [
        np.array([3, 3]),
        np.array([5, 3]),
        np.array([-1]),
        np.array([10]),
        np.array([0.5]),
        np.array([[1, 2]]),
    ],
)
def test_positions_that_have_no_code_are_refused(positions: np.ndarray) -> None:
    """Doubled, descending, negative, beyond the end, no integers, no vector."""
    with pytest.raises(GapCodeError):
        encode_gaps(positions, 10)


@pytest.mark.parametrize(
    ("code", "num_items", "complaint"),
    [
        (np.array([3, 255], np.uint8), 1000, "ends within a gap"),
        (np.array([10], np.uint8), 10, "points to item 10 of 10"),
        (np.array([0, 0, 0, 0], np.uint8), 3, "4 bytes"),
        (np.array([255] * 99 + [0], np.uint8), 1000, "points to item 25245"),
        (np.array([1], np.int64), 10, "uint8"),
        (np.array([[1]], np.uint8), 10, "2 dimensions"),
    ],
)
def test_damaged_codes_are_refused(code: np.ndarray, num_items: int, complaint: str) -> None:
    """Cut, beyond the end, too long, of another type or form."""
    with pytest.raises(GapCodeError, match=complaint):
        decode_gaps(code, num_items)
