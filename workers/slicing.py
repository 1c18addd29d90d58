"""Cutting an ordered list of rows into slices for compute threads. Pure."""

from collections.abc import Sequence


def cut_into_slices(
    row_lens: Sequence[int], num_threads: int, max_tokens: int, min_tokens: int = 1
) -> list[range]:
    """Cut rows into consecutive slices of about equally many tokens.

    There are as many slices as threads, or a multiple of that where the slices would be larger
    than `max_tokens`, so that the threads finish together, and fewer where they would be smaller
    than `min_tokens`. Rows are never cut, so a slice can miss either by part of a row.

    Args:
        row_lens: Tokens of each row, in the order of execution.
        num_threads: Slices that run at once, at least 1.
        max_tokens: About the largest slice.
        min_tokens: About the smallest, at most `max_tokens`; less in all are one slice.

    Returns:
        Positions in `row_lens`, none of the slices empty.
    """
    total = sum(row_lens)
    rounds = max(1, -(-total // (num_threads * max_tokens)))
    num_slices = min(rounds * num_threads, len(row_lens), max(1, total // min_tokens))
    slices: list[range] = []
    start = done = 0
    for position, row_len in enumerate(row_lens):
        done += row_len
        slices_left = num_slices - len(slices) - 1
        rows_left = len(row_lens) - position - 1
        # A border goes where the tokens so far first reach the slice's share; the row that
        # crosses it stays on the side that it is mostly on.
        border = total * (len(slices) + 1) / num_slices
        is_reached = done + (row_lens[position + 1] / 2 if rows_left else 0) > border
        if slices_left and (is_reached or rows_left == slices_left):
            slices.append(range(start, position + 1))
            start = position + 1
    if start < len(row_lens):
        slices.append(range(start, len(row_lens)))
    return slices
