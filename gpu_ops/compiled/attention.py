"""`gpu_ops.varlen_attention`, compiled: rows and heads one after the other, the softmax fused."""

import ctypes
from collections.abc import Mapping, Sequence

import torch

from gpu_ops.compiled.library import POINTER, SIZE, Library, check_contiguous
from gpu_ops.varlen_attention import PrefixStates

HEAD_WIDTHS = range(16, 257, 16)
"""Which widths of heads it takes."""


class CompiledAttention:
    """Called like `varlen_attention`; may be called from several threads."""

    def __init__(self, library: Library) -> None:
        self._scratch = library.function("attention_scratch", SIZE, SIZE, SIZE, result=SIZE)
        self._attend = library.by_dtype(
            "attention",
            *(POINTER, POINTER, POINTER),
            *(SIZE, SIZE, SIZE, SIZE),
            *(POINTER, SIZE),
            *(POINTER, POINTER, POINTER),
            *(POINTER, SIZE),
        )

    def __call__(
        self,
        qkv: torch.Tensor,
        num_heads: int,
        row_lens: Sequence[int],
        bias: torch.Tensor | None = None,
        prefixes: Mapping[int, PrefixStates] | None = None,
    ) -> torch.Tensor:
        """Let each row attend to itself, and to its prefix where it has one.

        Args:
            qkv: Shape (num_tokens, 3 * hidden), float32 or bfloat16.
            num_heads: Heads that `hidden` divides into; their width must be in `HEAD_WIDTHS`.
            row_lens: Tokens of each row, in order; together at most `num_tokens`.
            bias: Shape (num_heads, n, n) with n at least the longest row, or None.
            prefixes: By the row's number.

        Returns:
            Shape (num_tokens, hidden); zero for padding.

        Raises:
            ValueError: If the heads have another width, or rows are longer than `qkv` or `bias`.
        """
        num_tokens, hidden = len(qkv), qkv.shape[1] // 3
        width, num_rows = hidden // num_heads, len(row_lens)
        if width not in HEAD_WIDTHS:
            raise ValueError(f"expected heads of a multiple of 16 up to 256, got {width}")
        if sum(row_lens) > num_tokens:
            raise ValueError(f"expected rows of {num_tokens} tokens at most, got {sum(row_lens)}")
        longest = max(row_lens)
        if bias is not None and (len(bias) != num_heads or min(bias.shape[1:]) < longest):
            raise ValueError(
                f"expected a bias of ({num_heads}, {longest}, {longest}) or more, "
                f"got {tuple(bias.shape)}"
            )
        check_contiguous(qkv)
        out = qkv.new_empty(num_tokens, hidden)
        bias = None if bias is None else bias.float().contiguous()
        before = _Prefixes(prefixes or {}, num_rows)
        most_keys = max(map(sum, zip(row_lens, before.lens, strict=True)))
        scratch = torch.empty(self._scratch(num_heads, most_keys, width))
        self._attend[qkv.dtype](
            qkv.data_ptr(),
            out.data_ptr(),
            (ctypes.c_int32 * num_rows)(*row_lens),
            *(num_rows, num_tokens, num_heads, width),
            *((None, 0) if bias is None else (bias.data_ptr(), bias.shape[1])),
            *before.arguments,
            *(scratch.data_ptr(), most_keys),
        )
        return out


class _Prefixes:
    """Pointers to the prefixes of all rows; keeps alive what they point to."""

    def __init__(self, prefixes: Mapping[int, PrefixStates], num_rows: int) -> None:
        self.lens = [0] * num_rows
        self.arguments: tuple[object, object, object] = (None, None, None)
        if not prefixes:
            return
        keys, values = (ctypes.c_void_p * num_rows)(), (ctypes.c_void_p * num_rows)()
        self._held: list[torch.Tensor] = []
        for row, states in prefixes.items():
            self.lens[row] = len(states.keys)
            for pointers, part in zip((keys, values), states, strict=True):
                wide = part.float().contiguous()
                self._held.append(wide)
                pointers[row] = wide.data_ptr()
        self.arguments = keys, values, (ctypes.c_int32 * num_rows)(*self.lens)
