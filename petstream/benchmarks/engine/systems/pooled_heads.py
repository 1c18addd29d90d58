"""The tasks' heads behind a model that all tasks share, in torch: pooling, then linear."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from petstream.benchmarks.engine.cases import Pooling
from petstream.benchmarks.engine.weight_files import PetFile


class PooledHeads:
    """Each row's own head, all rows of a batch at once."""

    def __init__(self, pets: Sequence[PetFile], dtype: torch.dtype, pooling: Pooling) -> None:
        self._pooling = pooling
        self._weight = torch.from_numpy(np.stack([pet.head_weight for pet in pets])).to(dtype)
        self._bias = torch.from_numpy(np.stack([pet.head_bias for pet in pets])).to(dtype)

    def logits(
        self, hidden: torch.Tensor, mask: torch.Tensor, tasks: Sequence[int]
    ) -> NDArray[np.float32]:
        """Return logits, shape (rows, labels).

        Args:
            hidden: Shape (rows, tokens, hidden).
            mask: Shape (rows, tokens), 1 at a row's own tokens.
            tasks: Each row's.
        """
        numbers = torch.tensor(tasks) % len(self._weight)
        pooled = pool(hidden, mask, self._pooling)
        product = torch.einsum("rh,rlh->rl", pooled, self._weight[numbers]) + self._bias[numbers]
        logits: NDArray[np.float32] = product.float().numpy()
        return logits


def pool(hidden: torch.Tensor, mask: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """Return the mean of each row's own tokens, or its first one, shape (rows, hidden)."""
    if pooling == "cls":
        return hidden[:, 0]
    weights = mask[:, :, None].to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1)
