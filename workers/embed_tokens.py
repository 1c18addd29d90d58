"""What enters the first layer: embeddings of a packed batch, with each task's ops at them."""

import torch
from torch.nn import functional as F

from gpu_ops.layer_norm import NormWeights
from gpu_ops.spans import Span
from workers.backbone import EmbeddingWeights
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

    Args:
        batch: On the device of the tables, its tasks too.
        tables: The backbone's.
        eps: Of the LayerNorm.
        expanded: Expands LayerNorms of tasks.
        add_layer_norm: The operator.
    """
    embedded = F.embedding(batch.token_ids, tables.words)
    own_norms: list[tuple[Span, NormWeights]] = []
    behind_norm: list[tuple[torch.Tensor, torch.Tensor]] = []
    for segment in batch.segments:
        ops = segment.task.ops.embeddings
        if ops is None:
            continue
        tokens = slice(*segment.tokens)
        ops.change(batch.token_ids[tokens], batch.places[tokens], embedded[tokens])
        if ops.norm is not None:
            own_norms.append((segment.tokens, expanded.norm(ops.norm, tables.norm)))
        if ops.prompt is not None and segment.virtual_tokens is not None:
            vectors = ops.prompt.vectors.to(embedded.dtype)
            if ops.prompt.enters == "words":
                embedded[segment.virtual_tokens] = vectors
            else:
                behind_norm.append((segment.virtual_tokens, vectors))
    hidden = add_layer_norm(
        embedded,
        F.embedding(batch.places, tables.places),
        tables.norm,
        eps,
        [span for span, _ in own_norms],
        [norm for _, norm in own_norms],
    )
    if tables.projection is not None:
        hidden = F.linear(hidden, tables.projection.weight, tables.projection.bias)
    for virtual_tokens, vectors in behind_norm:
        hidden[virtual_tokens] = vectors
    return hidden
