"""Which tokens of the last layer are read: of rows that `cls` pools, the first one alone.

Behind attention a layer works on each token by itself, so that in the last one nothing need be
computed for tokens that no pooling reads: three quarters of a layer's products. Attention itself
needs all tokens, as keys and values.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np
import torch

from gpu_ops.spans import Span
from workers.backbone import Product
from workers.loaded_task import LoadedTask
from workers.packed_batch import ROUND_TOKENS_TO, PackedBatch, Segment

BEHIND_ATTENTION: tuple[Product, ...] = ("attention_output", "ffn_input", "ffn_output")


class ReadTokens(NamedTuple):
    """The tokens that are read, as a batch of their own."""

    tokens: torch.Tensor
    """Shape (num_tokens of the new batch,), int64: where they stand in the old one. The padding of
    the new one repeats the first token."""
    batch: PackedBatch
    """Rows with the tokens that are read; no virtual tokens any more, but those that are."""


class Encoded(NamedTuple):
    """What an encoder returns."""

    hidden: torch.Tensor
    """Shape (num_tokens, hidden), float32: the last layer's states."""
    batch: PackedBatch
    """Of the tokens that they are of."""


def read_tokens(batch: PackedBatch, num_layers: int) -> ReadTokens | None:
    """Return the tokens whose last hidden states are read; None: all are.

    A gate behind attention reads the mean of a row's tokens, so rows of its task keep them all.

    Args:
        batch: All tokens.
        num_layers: Of the backbone.
    """
    is_first = [_reads_first(segment.task, num_layers - 1) for segment in batch.segments]
    if not any(is_first):
        return None
    kept: list[Sequence[int]] = []
    own: list[Sequence[int]] = []
    first_tokens: list[int] = []
    starts = [0, *accumulate(batch.row_lens)]
    own_of_row = _own_tokens(batch, starts)
    position = 0
    for segment, reads_first in zip(batch.segments, is_first, strict=True):
        for row in range(*segment.rows):
            if reads_first:
                kept.append([batch.first_tokens[row]])
                own.append([position])
                first_tokens.append(position)
            else:
                shift = position - starts[row]
                kept.append(range(starts[row], starts[row + 1]))
                own.append([token + shift for token in own_of_row[row]])
                first_tokens.append(batch.first_tokens[row] + shift)
            position += len(kept[-1])
    row_lens = [len(tokens) for tokens in kept]
    own_lens = [len(tokens) for tokens in own]
    num_padding = -position % ROUND_TOKENS_TO
    flat = [token for tokens in kept for token in tokens] + [0] * num_padding
    tokens = torch.tensor(flat, dtype=torch.int64, device=batch.token_ids.device)
    has_all_own = batch.own_tokens is None
    return ReadTokens(
        tokens,
        PackedBatch(
            token_ids=batch.token_ids[tokens],
            places=batch.places[tokens],
            row_lens=row_lens,
            own_lens=own_lens,
            own_tokens=(
                None
                if has_all_own
                else torch.tensor([t for of in own for t in of], device=tokens.device)
            ),
            first_tokens=first_tokens,
            segments=_segments(batch.segments, row_lens, own_lens),
            row_numbers=batch.row_numbers,
        ),
    )


def _reads_first(task: LoadedTask, last_layer: int) -> bool:
    """Return whether only the first token's state of each row is read."""
    if task.level.pooling != "cls":
        return False
    for product in BEHIND_ATTENTION:
        ops = task.ops.products.get((last_layer, product))
        if ops is None:
            continue
        adapter, low_rank = ops.sublayer_adapter, ops.low_rank
        is_gated = adapter is not None and adapter.gate is not None
        is_gated |= low_rank is not None and any(up.gate is not None for up in low_rank.ups)
        if is_gated:
            return False
    return True


def _own_tokens(batch: PackedBatch, starts: Sequence[int]) -> list[Sequence[int]]:
    """Return where the own tokens of each row stand."""
    if batch.own_tokens is None:
        return [range(start, end) for start, end in pairwise(starts)]
    ends = np.cumsum(batch.own_lens)[:-1]
    return [part.tolist() for part in np.split(batch.own_tokens.cpu().numpy(), ends)]


def _segments(
    segments: Sequence[Segment], row_lens: Sequence[int], own_lens: Sequence[int]
) -> list[Segment]:
    starts, own_starts = [0, *accumulate(row_lens)], [0, *accumulate(own_lens)]
    return [
        replace(
            segment,
            tokens=Span(starts[segment.rows.start], starts[segment.rows.end]),
            own_tokens=Span(own_starts[segment.rows.start], own_starts[segment.rows.end]),
            row_lens=list(row_lens[segment.rows.start : segment.rows.end]),
            virtual_tokens=None,
        )
        for segment in segments
    ]
