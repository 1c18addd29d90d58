"""Attention over packed rows in one call: by torch's variable-length kernel, or padded.

The kernel knows neither a bias of scores nor prefixes, nor float32, nor any device but CUDA. What
it does not know is padded here: keys of padding are masked and are zeros, so that no row sees
another.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate

import torch
from torch.nn import functional as F

from gpu_ops.varlen_attention import PrefixStates

PLAIN_DTYPES = (torch.float16, torch.bfloat16)


def device_attention(
    qkv: torch.Tensor,
    num_heads: int,
    row_lens: Sequence[int],
    bias: torch.Tensor | None = None,
    prefixes: Mapping[int, PrefixStates] | None = None,
) -> torch.Tensor:
    """Let each row attend to itself, and to its prefix where it has one.

    Arguments, semantics and result are those of `gpu_ops.varlen_attention.varlen_attention`, but
    for what tokens past the last row get: that has no meaning.
    """
    is_plain = bias is None and not prefixes and qkv.dtype in PLAIN_DTYPES and qkv.is_cuda
    if is_plain:
        return _packed(qkv, num_heads, row_lens)
    return padded_attention(qkv, num_heads, row_lens, bias, prefixes or {})


def _packed(qkv: torch.Tensor, num_heads: int, row_lens: Sequence[int]) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn

    num_padding = len(qkv) - sum(row_lens)
    lens = [*row_lens, num_padding] if num_padding else list(row_lens)
    offsets = torch.tensor([0, *accumulate(lens)], dtype=torch.int32, device=qkv.device)
    query, key, value = qkv.view(len(qkv), 3, num_heads, -1).unbind(1)
    attended = varlen_attn(query, key, value, offsets, offsets, max(lens), max(lens))
    assert isinstance(attended, torch.Tensor)
    return attended.flatten(1)


def padded_attention(
    qkv: torch.Tensor,
    num_heads: int,
    row_lens: Sequence[int],
    bias: torch.Tensor | None,
    prefixes: Mapping[int, PrefixStates],
) -> torch.Tensor:
    """Gather rows into a rectangle, prefixes before their keys and values, and attend under a mask.

    As `device_attention`; tokens past the last row get zeros.
    """
    device, num_rows, longest = qkv.device, len(row_lens), max(row_lens)
    lens = torch.tensor(row_lens, device=device)
    starts = torch.tensor([0, *accumulate(row_lens)][:-1], device=device)
    places = torch.arange(longest, device=device)
    is_token = places < lens[:, None]
    # Padding reads a row of zeros behind the last: what is masked still counts, times zero, and
    # another row's NaN would not be zero then.
    zero_row = len(qkv)
    index = torch.where(is_token, starts[:, None] + places, zero_row)
    rows = torch.cat([qkv, qkv.new_zeros(1, qkv.shape[1])])[index]
    query, key, value = (
        part.transpose(1, 2) for part in rows.view(num_rows, longest, 3, num_heads, -1).unbind(2)
    )
    mask = qkv.new_zeros(num_rows, 1, 1, longest).masked_fill_(
        ~is_token[:, None, None, :], float("-inf")
    )
    if bias is not None:
        mask = mask + bias[None, :, :longest, :longest].to(qkv.dtype)
    num_virtual = max((len(states.keys) for states in prefixes.values()), default=0)
    if num_virtual:
        key, value, is_seen = _with_prefixes(key, value, prefixes, num_virtual)
        before = qkv.new_zeros(num_rows, 1, 1, num_virtual).masked_fill_(
            ~is_seen[:, None, None, :], float("-inf")
        )
        before = before.expand(num_rows, *mask.shape[1:3], num_virtual)
        mask = torch.cat([before, mask], dim=3)
    attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    out = qkv.new_zeros(len(qkv), qkv.shape[1] // 3)
    out[index[is_token]] = attended.transpose(1, 2).flatten(2)[is_token]
    return out


def _with_prefixes(
    key: torch.Tensor, value: torch.Tensor, prefixes: Mapping[int, PrefixStates], num_virtual: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return keys and values with room for the longest prefix before them, and what of it is seen.

    Args:
        key: Shape (num_rows, num_heads, longest, head_dim).
        value: Likewise.
        prefixes: By the row's number.
        num_virtual: Of the longest prefix.
    """
    num_rows, num_heads, _, width = key.shape
    keys, values = (key.new_zeros(num_rows, num_heads, num_virtual, width) for _ in range(2))
    is_seen = torch.zeros(num_rows, num_virtual, dtype=torch.bool, device=key.device)
    for row, states in prefixes.items():
        count = len(states.keys)
        keys[row, :, :count] = states.keys.view(count, num_heads, width).transpose(0, 1)
        values[row, :, :count] = states.values.view(count, num_heads, width).transpose(0, 1)
        is_seen[row, :count] = True
    return torch.cat([keys, key], dim=2), torch.cat([values, value], dim=2), is_seen
