"""What becomes of a text with more tokens than its task takes."""

from collections.abc import Sequence
from typing import Literal

Truncation = Literal["head", "head_and_tail", "refuse"]
"""Its beginning is kept (of a pair the longer one is cut first), or a quarter from its beginning
and the rest from its end, or its query is answered with TEXT_TOO_LONG."""


def head_and_tail(ids: Sequence[int], max_tokens: int) -> list[int]:
    """Return a quarter of what there is room for from the text's beginning, the rest from its end.

    The shares of Sun et al. (How to Fine-Tune BERT, 2019, section 5.3.1): 128 and 382 of 510.

    Args:
        ids: One text between its first and last special token, more than `max_tokens`.
        max_tokens: At least 3.
    """
    head = 1 + (max_tokens - 2) // 4
    return [*ids[:head], *ids[len(ids) - (max_tokens - head) :]]
