"""What a task does to the embeddings of its rows, as tensors."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from gpu_ops.layer_norm import NormDeltas
from tasks.site_ops import PromptLevel, PromptPlace, SiteOps
from workers.backbone import Backbone
from workers.errors import TaskUnsupportedError
from workers.task_tensors import as_tensor, narrow_tensor, narrowed, norm_deltas


class PromptVectors(NamedTuple):
    """Virtual tokens of each row of a task."""

    vectors: torch.Tensor
    """Shape (num_virtual, embedding_size) among words, (num_virtual, hidden) behind the norm."""
    place: PromptPlace
    enters: PromptLevel
    pools_own: bool


class ProjectionDeltas(NamedTuple):
    """What a task adds to the projection behind the embeddings."""

    weight: torch.Tensor
    """Shape (hidden, embedding_size)."""
    bias: torch.Tensor
    """Shape (hidden,)."""


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddingOps:
    """One task's ops at the embeddings; absent ones are None."""

    prompt: PromptVectors | None
    position_offset: int
    norm: NormDeltas | None
    word_rows: torch.Tensor | None
    """Shape (num_changed,), int64, ascending: rows of the word table."""
    word_deltas: torch.Tensor | None
    """Shape (num_changed, embedding_size), added to them."""
    place_deltas: torch.Tensor | None
    """Shape (num_token_types * max_positions, embedding_size), added to the table of places."""
    projection: ProjectionDeltas | None

    def add_word_deltas_(self, embedded: torch.Tensor, token_ids: torch.Tensor) -> None:
        """Add the deltas of words to the embeddings of a span of tokens.

        Args:
            embedded: Shape (num_tokens, embedding_size). Changed in place.
            token_ids: Shape (num_tokens,).
        """
        if self.word_rows is not None and self.word_deltas is not None:
            found = torch.searchsorted(self.word_rows, token_ids).clamp_(
                max=len(self.word_rows) - 1
            )
            is_changed = self.word_rows[found] == token_ids
            embedded[is_changed] += self.word_deltas[found[is_changed]]

    def add_place_deltas_(self, embedded: torch.Tensor, places: torch.Tensor) -> None:
        """Add the deltas of positions and token types to the embeddings of a span of tokens.

        Args:
            embedded: Shape (num_tokens, embedding_size). Changed in place.
            places: Shape (num_tokens,): rows of the table of places.
        """
        if self.place_deltas is not None:
            embedded += self.place_deltas[places]


def embedding_ops(ops: SiteOps, backbone: Backbone) -> EmbeddingOps:
    """Return the ops of a task at the embeddings of a backbone."""
    norm = None
    if ops.norm_weight is not None or ops.norm_bias is not None:
        norm = norm_deltas(ops)
    prompt = None
    if ops.prompt is not None:
        prompt = PromptVectors(
            narrow_tensor(ops.prompt.vectors),
            ops.prompt.place,
            ops.prompt.enters,
            ops.prompt.pools_own,
        )
    projection = None
    if ops.projection_delta is not None:
        projection = ProjectionDeltas(
            narrow_tensor(ops.projection_delta.weight), narrow_tensor(ops.projection_delta.bias)
        )
    words = ops.word_deltas
    return EmbeddingOps(
        prompt=prompt,
        position_offset=ops.position_offset,
        norm=norm,
        word_rows=None if words is None else torch.from_numpy(words.rows.astype(np.int64)),
        word_deltas=None if words is None else narrow_tensor(words.values),
        place_deltas=_place_deltas(ops, backbone),
        projection=projection,
    )


def _place_deltas(ops: SiteOps, backbone: Backbone) -> torch.Tensor | None:
    """Return the deltas of positions and token types, summed as the backbone's table is."""
    if ops.position_deltas is None and ops.type_deltas is None:
        return None
    width = backbone.shape.embedding_size
    positions = torch.zeros(backbone.shape.max_positions, width)
    types = torch.zeros(backbone.num_token_types, width)
    if ops.position_deltas is not None:
        positions = _fitting(as_tensor(ops.position_deltas), positions, "positions")
    if ops.type_deltas is not None:
        types = _fitting(as_tensor(ops.type_deltas), types, "token types")
    return narrowed((types[:, None, :] + positions[None, :, :]).reshape(-1, width))


def _fitting(deltas: torch.Tensor, table: torch.Tensor, name: str) -> torch.Tensor:
    """Return deltas that have the table's shape.

    Raises:
        TaskUnsupportedError: If they do not.
    """
    if deltas.shape != table.shape:
        raise TaskUnsupportedError(
            f"the task changes {len(deltas)} {name}, the backbone has {len(table)}: it was trained "
            f"on another one"
        )
    return deltas
