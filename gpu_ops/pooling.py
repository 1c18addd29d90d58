"""From the hidden states of a row's tokens to one vector per row; the host waits for no device."""

from collections.abc import Sequence

import torch


def mean_pool(hidden_states: torch.Tensor, row_lens: Sequence[int]) -> torch.Tensor:
    """Return the mean over all tokens of each row, [CLS] and [SEP] included.

    Args:
        hidden_states: Shape (num_tokens, hidden); tokens past the last row are ignored.
        row_lens: Tokens of each row, in order, each at least 1.

    Returns:
        Shape (num_rows, hidden).
    """
    num_tokens = sum(row_lens)
    lengths = _on_device_of(hidden_states, row_lens)
    # unsafe: without a look at the lengths, for which the host would wait.
    return torch.segment_reduce(
        hidden_states[:num_tokens], "mean", lengths=lengths, axis=0, unsafe=True
    )


def first_token_pool(hidden_states: torch.Tensor, row_starts: Sequence[int]) -> torch.Tensor:
    """Return the first token's vector ([CLS]) of each row.

    Args:
        hidden_states: Shape (num_tokens, hidden).
        row_starts: Position of each row's first token.

    Returns:
        Shape (num_rows, hidden).
    """
    return hidden_states.index_select(0, _on_device_of(hidden_states, row_starts))


def _on_device_of(hidden_states: torch.Tensor, numbers: Sequence[int]) -> torch.Tensor:
    made = torch.tensor(numbers, dtype=torch.int64)
    return made.to(hidden_states.device, non_blocking=True)
