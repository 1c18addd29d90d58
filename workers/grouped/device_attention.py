"""Attention over packed rows in few calls: by torch's variable-length kernel, or padded.

The kernel knows neither a bias of scores nor prefixes, nor float32, nor heads of every width, nor
any device but CUDA. What it does not know is padded here: keys of padding are masked and are
zeros, so that no row sees another.
"""

from collections.abc import Mapping

import torch
from torch.nn import functional as F

from gpu_ops.varlen_attention import PrefixStates
from workers.grouped.packed_rows import PackedRows, Rectangle

PLAIN_DTYPES = (torch.float16, torch.bfloat16)
HEAD_MULTIPLE, MAX_HEAD_WIDTH = 8, 256
"""Of heads that the kernel knows."""


def device_attention(
    qkv: torch.Tensor,
    num_heads: int,
    rows: PackedRows,
    bias: torch.Tensor | None = None,
    prefixes: Mapping[int, PrefixStates] | None = None,
) -> torch.Tensor:
    """Let each row attend to itself, and to its prefix where it has one.

    Semantics, the other arguments and the result are those of
    `gpu_ops.varlen_attention.varlen_attention`, but for what tokens past the last row get: that has
    no meaning.

    Args:
        qkv: Shape (num_tokens, 3 * hidden).
        num_heads: Heads that `hidden` divides into.
        rows: Of the batch.
        bias: Of scores, by head, query and key.
        prefixes: By the row's number.
    """
    if qkv.is_cuda and bias is None and not prefixes and fits_kernel(qkv, num_heads):
        return _packed(qkv, num_heads, rows)
    return padded_attention(qkv, num_heads, rows, bias, prefixes or {})


def fits_kernel(qkv: torch.Tensor, num_heads: int) -> bool:
    """Return whether the kernel has such a type, and heads of such a width."""
    head_width = qkv.shape[1] // (3 * num_heads)
    fits = head_width % HEAD_MULTIPLE == 0 and head_width <= MAX_HEAD_WIDTH
    return fits and qkv.dtype in PLAIN_DTYPES


def _packed(qkv: torch.Tensor, num_heads: int, rows: PackedRows) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn

    offsets, longest = rows.offsets(), rows.longest
    query, key, value = qkv.view(len(qkv), 3, num_heads, -1).unbind(1)
    attended = varlen_attn(query, key, value, offsets, offsets, longest, longest)
    assert isinstance(attended, torch.Tensor)
    return attended.flatten(1)


def padded_attention(
    qkv: torch.Tensor,
    num_heads: int,
    rows: PackedRows,
    bias: torch.Tensor | None,
    prefixes: Mapping[int, PrefixStates],
) -> torch.Tensor:
    """Gather rows into rectangles, prefixes before their keys and values, attend under a mask.

    As `device_attention`; tokens past the last row get zeros.
    """
    out = qkv.new_zeros(len(qkv), qkv.shape[1] // 3)
    # Padding reads a row of zeros behind the last: what is masked still counts, times zero, and
    # another row's NaN would not be zero then.
    padded = torch.cat([qkv, qkv.new_zeros(1, qkv.shape[1])])
    for rectangle in rows.rectangles():
        own = {
            place: prefixes[number]
            for place, number in enumerate(rectangle.numbers)
            if number in prefixes
        }
        attended = _rectangle_attention(padded, num_heads, rectangle, bias, own)
        out[rectangle.to_packed] = attended[rectangle.from_rectangle]
    return out


def _rectangle_attention(
    qkv: torch.Tensor,
    num_heads: int,
    rectangle: Rectangle,
    bias: torch.Tensor | None,
    prefixes: Mapping[int, PrefixStates],
) -> torch.Tensor:
    """Return what the tokens of a rectangle attend to, shape (rows * longest, hidden).

    Args:
        qkv: Shape (num_tokens + 1, 3 * hidden), zeros last.
        num_heads: Heads that `hidden` divides into.
        rectangle: Its rows.
        bias: As in `device_attention`.
        prefixes: By the row's number in the rectangle.
    """
    num_rows, longest = rectangle.tokens.shape
    gathered = qkv[rectangle.tokens].view(num_rows, longest, 3, num_heads, -1)
    query, key, value = (part.transpose(1, 2) for part in gathered.unbind(2))
    mask = _masking(rectangle.is_token, qkv.dtype)
    if bias is not None:
        mask = mask + bias[None, :, :longest, :longest].to(qkv.dtype)
    if prefixes:
        key, value, is_seen = _with_prefixes(key, value, prefixes)
        before = _masking(is_seen, qkv.dtype).expand(*mask.shape[:3], is_seen.shape[1])
        mask = torch.cat([before, mask], dim=3)
    attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return attended.transpose(1, 2).flatten(2).flatten(0, 1)


def _masking(is_seen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return what is added to scores of keys, shape (num_rows, 1, 1, num_keys)."""
    mask = torch.zeros(is_seen.shape, dtype=dtype, device=is_seen.device)
    return mask.masked_fill_(~is_seen, float("-inf"))[:, None, None, :]


def _with_prefixes(
    key: torch.Tensor, value: torch.Tensor, prefixes: Mapping[int, PrefixStates]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return keys and values with room for the longest prefix before them, and what of it is seen.

    Args:
        key: Shape (num_rows, num_heads, longest, head_dim).
        value: Likewise.
        prefixes: By the row's number.
    """
    num_rows, num_heads, _, width = key.shape
    num_virtual = max(len(states.keys) for states in prefixes.values())
    keys, values = (key.new_zeros(num_rows, num_heads, num_virtual, width) for _ in range(2))
    is_seen = torch.zeros(num_rows, num_virtual, dtype=torch.bool, device=key.device)
    for row, states in prefixes.items():
        count = len(states.keys)
        keys[row, :, :count] = states.keys.view(count, num_heads, width).transpose(0, 1)
        values[row, :, :count] = states.values.view(count, num_heads, width).transpose(0, 1)
        is_seen[row, :count] = True
    return torch.cat([keys, key], dim=2), torch.cat([values, value], dim=2), is_seen
