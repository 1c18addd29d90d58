"""The sizes that batches are brought to, so that captured passes fit many of them."""

from collections.abc import Sequence
from typing import NamedTuple

from gpu_ops.grouped.launch import div_ceil
from workers.power_of_two import power_of_two

SMALLEST_TOKENS, STEPS_TO_DOUBLE = 64, 8
"""Of tokens: from 512 on a batch is padded by an eighth at most."""
SMALLEST_ROWS, SMALLEST_LONGEST = 8, 16


class PassSizes(NamedTuple):
    """What a pass has room for."""

    num_tokens: int
    num_rows: int
    longest: int
    """Tokens of a row."""


def pass_sizes(row_lens: Sequence[int], num_tokens: int) -> PassSizes:
    """Return the sizes of a batch.

    Args:
        row_lens: Tokens of each row.
        num_tokens: Of all, with what they are padded by.
    """
    step = max(SMALLEST_TOKENS, power_of_two(num_tokens) // (2 * STEPS_TO_DOUBLE))
    return PassSizes(
        div_ceil(num_tokens, step) * step,
        power_of_two(len(row_lens), SMALLEST_ROWS),
        power_of_two(max(row_lens), SMALLEST_LONGEST),
    )
