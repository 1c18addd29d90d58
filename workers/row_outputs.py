"""From the last layer's hidden states to what each row is answered with: pooling and heads."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from gpu_ops.pooling import first_token_pool, mean_pool
from gpu_ops.ragged_head import HeadWeights
from gpu_ops.spans import Span
from workers.packed_batch import PackedBatch, Segment
from workers.read_tokens import Encoded

RunHeads = Callable[
    [torch.Tensor, Sequence[Span], Sequence[HeadWeights]], Sequence[NDArray[np.float32]]
]
"""`gpu_ops.ragged_head.ragged_head`, its results in host memory."""


def row_outputs(encoded: Encoded, run_heads: RunHeads) -> dict[int, NDArray[np.float32]]:
    """Return row number -> logits, or an embedding's vector.

    Args:
        encoded: Hidden states of the tokens that are read.
        run_heads: The operator.
    """
    hidden, batch = encoded
    pooled = [s for s in batch.segments if s.task.level.pooling != "none"]
    tagged = [s for s in batch.segments if s.task.level.pooling == "none"]
    own = hidden if batch.own_tokens is None else hidden[batch.own_tokens]
    outputs_of: dict[int, NDArray[np.float32]] = {}
    for pooling in ("mean", "cls"):
        segments = [s for s in pooled if s.task.level.pooling == pooling]
        if segments:
            vectors = (
                mean_pool(own, batch.own_lens)
                if pooling == "mean"
                else first_token_pool(hidden, batch.first_tokens)
            )
            outputs = run_heads(
                vectors, [s.rows for s in segments], [s.task.ops.head for s in segments]
            )
            for segment, output in zip(segments, outputs, strict=True):
                numbers = batch.row_numbers[segment.rows.start : segment.rows.end]
                outputs_of.update(zip(numbers, output, strict=True))
    outputs = run_heads(own, [s.own_tokens for s in tagged], [s.task.ops.head for s in tagged])
    for segment, output in zip(tagged, outputs, strict=True):
        outputs_of.update(_split_tokens(segment, output, batch))
    return outputs_of


def _split_tokens(
    segment: Segment, output: NDArray[np.float32], batch: PackedBatch
) -> dict[int, NDArray[np.float32]]:
    """Cut a tagging segment's output into its rows."""
    lens = batch.own_lens[segment.rows.start : segment.rows.end]
    numbers = batch.row_numbers[segment.rows.start : segment.rows.end]
    return dict(zip(numbers, np.split(output, np.cumsum(lens)[:-1]), strict=True))
