"""Sorted positions in a matrix as one byte each: the gaps between them.

A byte 0..254 says: skip so many positions, then one position. A byte 255 says: skip 255 positions
and read on. So each set of positions has exactly one code, and at the densities of MaskBERT (5 %)
and diff pruning (0.5 %) a position costs 1.00 and 1.39 bytes, where CSR spends 4 on the column.
"""

import numpy as np
from numpy.typing import NDArray

_SKIP = 255


class GapCodeError(ValueError):
    """Positions that cannot be coded, or bytes that are no code of positions below the limit."""


def encode_gaps(positions: NDArray[np.integer], num_items: int) -> NDArray[np.uint8]:
    """Code positions as gaps.

    Args:
        positions: Shape (num_positions,), strictly ascending, each in [0, num_items).
        num_items: How many items the matrix has.

    Returns:
        Shape (num_bytes,).

    Raises:
        GapCodeError: If the positions are not one-dimensional integers, ascending and in range.
    """
    if positions.ndim != 1 or not np.issubdtype(positions.dtype, np.integer):
        raise GapCodeError(
            f"expected a vector of integers, got {positions.ndim} dimensions of {positions.dtype}"
        )
    if positions.size == 0:
        return np.empty(0, np.uint8)
    positions = positions.astype(np.int64)
    steps = np.diff(positions, prepend=-1)
    if positions[0] < 0 or positions[-1] >= num_items or (steps < 1).any():
        raise GapCodeError(f"expected strictly ascending positions below {num_items}")
    num_skips, rest = np.divmod(steps - 1, _SKIP)
    code = np.full(int(num_skips.sum()) + positions.size, _SKIP, np.uint8)
    code[np.cumsum(num_skips + 1) - 1] = rest
    return code


def decode_gaps(code: NDArray[np.uint8], num_items: int) -> NDArray[np.int32]:
    """Return the positions of a gap code.

    Args:
        code: Shape (num_bytes,).
        num_items: How many items the matrix has, at most 2**31 - 1.

    Returns:
        Shape (num_positions,), strictly ascending, each in [0, num_items).

    Raises:
        GapCodeError: If the code is no vector of uint8, ends within a gap, is longer than
            `max_gap_bytes` or points to `num_items` or beyond.
    """
    if code.ndim != 1 or code.dtype != np.uint8:
        raise GapCodeError(f"expected a vector of uint8, got {code.ndim} dimensions, {code.dtype}")
    if code.size == 0:
        return np.empty(0, np.int32)
    if code.size > max_gap_bytes(num_items):
        raise GapCodeError(f"{code.size} bytes, where {num_items} items need no more than "
                           f"{max_gap_bytes(num_items)}")  # fmt: skip
    if code[-1] == _SKIP:
        raise GapCodeError("ends within a gap")
    (ends,) = np.nonzero(code != _SKIP)
    positions = np.cumsum(code, dtype=np.int64)[ends] + np.arange(ends.size)
    if positions[-1] >= num_items:
        raise GapCodeError(f"points to item {positions[-1]} of {num_items}")
    return positions.astype(np.int32)


def max_gap_bytes(num_items: int) -> int:
    """Return the length of the longest code of positions below `num_items`.

    A position costs one byte and 255 skipped items cost one: no code is longer than one byte
    per item.
    """
    return num_items
