"""MPNet's bias of attention scores by the distance of two tokens.

It is that of T5 (Raffel et al. 2020, section 2.1), one table for all layers. Distances are sorted
into buckets, half of them for keys behind the query: near distances have one each, far ones share
buckets that widen with the logarithm.
"""

import math

import torch

from workers.power_of_two import power_of_two

_MAX_DISTANCE = 128
"""From here on all distances share one bucket."""


class RelativeBias:
    """The bias of each head and pair of positions. May be used from any thread.

    That of a short row is a corner of that of a long one, so one square serves all rows. It grows
    to the longest row seen: rows are mostly short, and that of the longest possible can be large.
    """

    def __init__(self, table: torch.Tensor, max_positions: int) -> None:
        """Build nothing yet.

        Args:
            table: Shape (num_buckets, num_heads).
            max_positions: Of the longest row without virtual tokens.
        """
        self._table = table
        self._max_positions = max_positions
        self._square = table.new_empty(table.shape[1], 0, 0)

    def up_to(self, num_tokens: int) -> torch.Tensor:
        """Return the bias for rows of up to `num_tokens` tokens.

        Returns:
            Shape (num_heads, n, n) with n at least `num_tokens`: by head, query and key.
        """
        square = self._square
        if square.shape[1] < num_tokens:
            # The virtual tokens of a prompt come on top of what there are positions for.
            # Two threads may both build it, and either is right.
            size = max(num_tokens, min(power_of_two(num_tokens), self._max_positions))
            self._square = square = _bias(self._table, size)
        return square


def _bias(table: torch.Tensor, size: int) -> torch.Tensor:
    positions = torch.arange(size)
    buckets = relative_buckets(positions[None, :] - positions[:, None], len(table))
    return table.t()[:, buckets]


def relative_buckets(distances: torch.Tensor, num_buckets: int) -> torch.Tensor:
    """Return the bucket of each distance, key's position less query's.

    Args:
        distances: int64, any shape.
        num_buckets: A multiple of 4.
    """
    num_each_way = num_buckets // 2
    num_exact = num_each_way // 2
    far = distances.abs()
    # How far along the way from num_exact to _MAX_DISTANCE, on a scale of logarithms.
    share = (far.clamp(min=1).float() / num_exact).log() / math.log(_MAX_DISTANCE / num_exact)
    widening = num_exact + (share * (num_each_way - num_exact)).long()
    bucket = torch.where(far < num_exact, far, widening.clamp(max=num_each_way - 1))
    return bucket + num_each_way * (distances > 0)
