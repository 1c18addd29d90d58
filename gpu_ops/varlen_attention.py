"""Self-attention over packed rows of different lengths (BERT: Devlin et al. 2019, section 3)."""

from collections.abc import Sequence

import torch
from torch.nn import functional as F


def varlen_attention(qkv: torch.Tensor, num_heads: int, row_lens: Sequence[int]) -> torch.Tensor:
    """Let each row attend to itself alone.

    Semantics: for each row r and head a, softmax(q k^T / sqrt(head_dim)) v over r's tokens.

    One call of torch's fused kernel per row, on views: packing several short rows into one call
    under a block mask was measured to gain nothing, and would let a NaN of one row into another.

    Args:
        qkv: Shape (num_tokens, 3 * hidden): queries, keys and values side by side, each with its
            heads one after the other. Tokens past the last row are padding.
        num_heads: Heads that `hidden` divides into.
        row_lens: Tokens of each row, in order.

    Returns:
        Shape (num_tokens, hidden); zero for padding.
    """
    num_tokens, hidden = qkv.shape[0], qkv.shape[1] // 3
    num_padding = num_tokens - sum(row_lens)
    heads = qkv.view(num_tokens, 3, num_heads, hidden // num_heads).permute(1, 2, 0, 3)
    lens = [*row_lens, num_padding] if num_padding else list(row_lens)
    query, key, value = (part.unsqueeze(0).split(lens, dim=2) for part in heads)
    rows = [
        F.scaled_dot_product_attention(query[i], key[i], value[i])
        .transpose(1, 2)
        .reshape(-1, hidden)
        for i in range(len(row_lens))
    ]
    if num_padding:
        rows.append(qkv.new_zeros(num_padding, hidden))
    return torch.cat(rows)
