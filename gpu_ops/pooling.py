"""From the hidden states of a row's tokens to one vector per row; the host waits for no device."""

from collections.abc import Sequence

import torch

from gpu_ops.upload import upload


def mean_pool(hidden_states: torch.Tensor, row_lens: Sequence[int]) -> torch.Tensor:
    """Return the mean over all tokens of each row, [CLS] and [SEP] included.

    Args:
        hidden_states: Shape (num_tokens, hidden); tokens past the last row are ignored.
        row_lens: Tokens of each row, in order, each at least 1.

    Returns:
        Shape (num_rows, hidden).
    """
    num_tokens = sum(row_lens)
    lengths = upload(torch.tensor(row_lens, dtype=torch.int64), hidden_states.device)
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
    starts = upload(torch.tensor(row_starts, dtype=torch.int64), hidden_states.device)
    return hidden_states.index_select(0, starts)
