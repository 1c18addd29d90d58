"""The tasks' heads behind a model that all tasks share, in torch: mean over tokens, then linear."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from petstream.benchmarks.engine.weight_files import PetFile


class PooledHeads:
    """Each row's own head, all rows of a batch at once."""

    def __init__(self, pets: Sequence[PetFile], dtype: torch.dtype) -> None:
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
        pooled = mean_pool(hidden, mask)
        product = torch.einsum("rh,rlh->rl", pooled, self._weight[numbers]) + self._bias[numbers]
        logits: NDArray[np.float32] = product.float().numpy()
        return logits


def mean_pool(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the mean of each row's own tokens, shape (rows, hidden)."""
    weights = mask[:, :, None].to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1)
