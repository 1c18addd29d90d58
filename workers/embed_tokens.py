"""What enters the first layer: embeddings of a packed batch, with each task's ops at them."""

import torch
from torch.nn import functional as F

from gpu_ops.layer_norm import NormWeights
from gpu_ops.spans import Span
from workers.backbone import EmbeddingWeights
from workers.embedding_ops import ProjectionDeltas
from workers.expanded_weights import ExpandedWeights
from workers.operators import AddLayerNorm
from workers.packed_batch import PackedBatch


def embed_tokens(
    batch: PackedBatch,
    tables: EmbeddingWeights,
    eps: float,
    expanded: ExpandedWeights,
    add_layer_norm: AddLayerNorm,
) -> torch.Tensor:
    """Return the hidden states before the first layer, shape (num_tokens, hidden), float32.

    A prompt among the words is written over what its virtual tokens have of words, before places
    and the task's deltas of them are added; a hidden one, over what comes out in the end.

    Args:
        batch: On the device of the tables, its tasks too.
        tables: The backbone's.
        eps: Of the LayerNorm.
        expanded: Expands LayerNorms of tasks.
        add_layer_norm: The operator.
    """
    embedded = F.embedding(batch.token_ids, tables.words)
    own_norms: list[tuple[Span, NormWeights]] = []
    own_projections: list[tuple[slice, ProjectionDeltas]] = []
    behind_norm: list[tuple[torch.Tensor, torch.Tensor]] = []
    for segment in batch.segments:
        ops = segment.task.ops.embeddings
        if ops is None:
            continue
        tokens = slice(*segment.tokens)
        ops.add_word_deltas_(embedded[tokens], batch.token_ids[tokens])
        if ops.prompt is not None and segment.virtual_tokens is not None:
            vectors = ops.prompt.vectors.to(embedded.dtype)
            if ops.prompt.enters == "words":
                embedded[segment.virtual_tokens] = vectors
            else:
                behind_norm.append((segment.virtual_tokens, vectors))
        ops.add_place_deltas_(embedded[tokens], batch.places[tokens])
        if ops.norm is not None:
            own_norms.append((segment.tokens, expanded.norm(ops.norm, tables.norm)))
        if ops.projection is not None:
            own_projections.append((tokens, ops.projection))
    hidden = add_layer_norm(
        embedded,
        F.embedding(batch.places, tables.places),
        tables.norm,
        eps,
        [span for span, _ in own_norms],
        [norm for _, norm in own_norms],
    )
    if tables.projection is not None:
        normed = hidden
        hidden = F.linear(normed, tables.projection.weight, tables.projection.bias)
        for tokens, (weight, bias) in own_projections:
            hidden[tokens] += F.linear(normed[tokens], weight.to(hidden), bias.to(hidden))
    for virtual_tokens, vectors in behind_norm:
        hidden[virtual_tokens] = vectors
    return hidden
