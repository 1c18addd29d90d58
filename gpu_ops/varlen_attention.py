"""Self-attention over packed rows of different lengths (BERT: Devlin et al. 2019, section 3).

Rows of tasks with prefix tuning (Li and Liang 2021, section 4) see keys and values of their task.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch.nn import functional as F


class PrefixStates(NamedTuple):
    """Keys and values that a row sees before its own."""

    keys: torch.Tensor
    """Shape (num_virtual, hidden), heads one after the other."""
    values: torch.Tensor
    """Shape (num_virtual, hidden)."""


def varlen_attention(
    qkv: torch.Tensor,
    num_heads: int,
    row_lens: Sequence[int],
    bias: torch.Tensor | None = None,
    prefixes: Mapping[int, PrefixStates] | None = None,
) -> torch.Tensor:
    """Let each row attend to itself, and to its prefix where it has one.

    Semantics: for each row r and head a, softmax(q k^T / sqrt(head_dim) + bias_a) v over r's
    tokens and prefix; a prefix has no bias.

    Row by row, on views, without a bias in torch's fused kernel: packing several short rows into
    one call under a block mask was measured to gain nothing, and would let a NaN of one row into
    another.

    Args:
        qkv: Shape (num_tokens, 3 * hidden): queries, keys and values side by side, each with its
            heads one after the other. Tokens past the last row are padding.
        num_heads: Heads that `hidden` divides into.
        row_lens: Tokens of each row, in order.
        bias: Shape (num_heads, n, n) by head, query and key, with n at least the longest row; a row
            takes the first of its tokens. None adds nothing.
        prefixes: By the row's number.

    Returns:
        Shape (num_tokens, hidden); zero for padding.
    """
    num_tokens, hidden = qkv.shape[0], qkv.shape[1] // 3
    num_padding = num_tokens - sum(row_lens)
    heads = qkv.view(num_tokens, 3, num_heads, hidden // num_heads).permute(1, 2, 0, 3)
    lens = [*row_lens, num_padding] if num_padding else list(row_lens)
    query, key, value = (part.unsqueeze(0).split(lens, dim=2) for part in heads)
    rows: list[torch.Tensor] = []
    for i in range(len(row_lens)):
        keys, values = key[i], value[i]
        if prefixes and i in prefixes:
            keys = torch.cat([_in_heads(prefixes[i].keys, num_heads), keys], dim=2)
            values = torch.cat([_in_heads(prefixes[i].values, num_heads), values], dim=2)
        attended = _attended(query[i], keys, values, bias)
        rows.append(attended.transpose(1, 2).reshape(-1, hidden))
    if num_padding:
        rows.append(qkv.new_zeros(num_padding, hidden))
    return torch.cat(rows)


def _attended(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """Let one row attend; all but the bias have shape (1, num_heads, tokens, head_dim)."""
    if bias is None:
        return F.scaled_dot_product_attention(query, key, value)
    # The fused kernel takes a bias too, but then twice as long as this up to 64 tokens.
    row_len, width = query.shape[2:]
    num_virtual = key.shape[2] - row_len
    added = F.pad(bias[:, :row_len, :row_len], (num_virtual, 0)).to(query.dtype)
    scores = torch.baddbmm(added, query[0], key[0].transpose(1, 2), alpha=width**-0.5)
    return torch.bmm(scores.softmax(dim=-1), value[0]).unsqueeze(0)


def _in_heads(states: torch.Tensor, num_heads: int) -> torch.Tensor:
    """Return shape (1, num_heads, num_virtual, head_dim)."""
    return states.view(1, len(states), num_heads, -1).transpose(1, 2)
