"""Changes of the embedding tables and of the projection behind them, as full fine-tunes have."""

from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tasks.backbone_shape import BackboneShape, Site
from tasks.errors import SiteNotFound, TensorShapeMismatch
from tasks.gap_coding import encode_gaps, max_gap_bytes
from tasks.pets.pet import (
    Pet,
    StoredFloat,
    Tensors,
    TensorSpec,
    check_names,
    check_shape,
    decode_positions,
    to_float32,
    to_stored_float,
)
from tasks.site_ops import ProjectionDelta, RowDeltas, SiteOps

_GAPS, _ROWS = "embeddings.word_gaps", "embeddings.word_rows"
_POSITIONS, _TYPES = "embeddings.positions", "embeddings.types"
_PROJECTION, _PROJECTION_BIAS = "embeddings.projection.weight", "embeddings.projection.bias"


class EmbeddingDelta(Pet):
    """Adds to rows of the word table, to all positions, all token types and the projection."""

    kind: Literal["embedding_delta"] = "embedding_delta"
    num_positions: Annotated[int, Field(ge=0, le=65536)] = 0
    """Rows of `embeddings.positions`; 0: they are shared."""
    num_types: Annotated[int, Field(ge=0, le=64)] = 0
    """Rows of `embeddings.types`; 0: they are shared."""
    has_projection: bool = False
    """Whether the projection behind the embeddings changes; False: it is shared."""

    def tensor_specs(self, shape: BackboneShape) -> dict[str, TensorSpec]:
        """The gap code of the changed words and their rows, end to end; the rest whole.

        Raises:
            SiteNotFound: If the projection changes and the backbone has none.
        """
        specs = {
            _GAPS: TensorSpec((None,), ("uint8",), max_gap_bytes(shape.vocab_size)),
            _ROWS: TensorSpec((None,), max_items=shape.vocab_size * shape.embedding_size),
        }
        return specs | self._whole_specs(shape)

    def decode(self, shape: BackboneShape, tensors: Tensors) -> dict[tuple[int, Site], SiteOps]:
        """Deltas at the embeddings."""
        rows = decode_positions(_GAPS, tensors[_GAPS], shape.vocab_size)
        values = tensors[_ROWS]
        if values.size != rows.size * shape.embedding_size:
            raise TensorShapeMismatch(
                f"{_ROWS} has {values.size} values for {rows.size} words of "
                f"{shape.embedding_size}: write the artifact again"
            )
        words = RowDeltas(rows, to_float32(values.reshape(-1, shape.embedding_size)))
        projection = None
        if self.has_projection:
            projection = ProjectionDelta(
                to_float32(tensors[_PROJECTION]), to_float32(tensors[_PROJECTION_BIAS])
            )
        return {
            (0, "embeddings"): SiteOps(
                word_deltas=words if rows.size else None,
                position_deltas=to_float32(tensors[_POSITIONS]) if self.num_positions else None,
                type_deltas=to_float32(tensors[_TYPES]) if self.num_types else None,
                projection_delta=projection,
            )
        }

    def encode(
        self, shape: BackboneShape, dense: Tensors, dtype: StoredFloat = "float16"
    ) -> dict[str, NDArray[Any]]:
        """Encode `embeddings.words` [vocab, embedding], 0 where unchanged, beside the rest."""
        whole = self._whole_specs(shape)
        words = "embeddings.words"
        check_names(dense, {words: None, **whole})
        check_shape(words, dense[words].shape, TensorSpec((shape.vocab_size, shape.embedding_size)))
        values = to_stored_float(words, dense[words], dtype)
        changed = np.flatnonzero(values.any(axis=1))
        stored: dict[str, NDArray[Any]] = {
            _GAPS: encode_gaps(changed, shape.vocab_size),
            _ROWS: np.ascontiguousarray(values[changed].ravel()),
        }
        for name, spec in whole.items():
            check_shape(name, dense[name].shape, spec)
            stored[name] = to_stored_float(name, dense[name], dtype)
        return stored

    def _whole_specs(self, shape: BackboneShape) -> dict[str, TensorSpec]:
        width = shape.embedding_size
        sizes = {_POSITIONS: self.num_positions, _TYPES: self.num_types}
        specs = {name: TensorSpec((size, width)) for name, size in sizes.items() if size}
        if not self.has_projection:
            return specs
        if width == shape.hidden_size:
            raise SiteNotFound(
                "the task changes the projection behind the embeddings, which a backbone does not "
                "have whose embeddings are as wide as its layers: it was trained for another one"
            )
        specs[_PROJECTION] = TensorSpec((shape.hidden_size, width))
        specs[_PROJECTION_BIAS] = TensorSpec((shape.hidden_size,))
        return specs
