"""PETs at embeddings that are not as wide as the layers (ELECTRA): sizes and stored form."""

from dataclasses import replace

import numpy as np
import pytest

from tasks.errors import SiteNotFound, TensorShapeMismatch
from tasks.pets.bitfit import BitFit
from tasks.pets.embedding_delta import EmbeddingDelta
from tasks.pets.kinds import AnyPet
from tasks.pets.layer_norm import LayerNormTuning
from tasks.pets.prompt import Prompt
from tests.tasks.artifacts import SHAPE, dense_tensors

PROJECTED = replace(SHAPE, embedding_size=3)

# Written out by hand for 50 words, embeddings of 3 and layers of 8.
DOCUMENTED: list[tuple[AnyPet, dict[str, tuple[int | None, ...]]]] = [
    (Prompt(num_tokens=5), {"embeddings.prompt": (5, 3)}),
    (Prompt(num_tokens=5, enters="hidden"), {"embeddings.prompt": (5, 8)}),
    (
        EmbeddingDelta(num_positions=32, num_types=2, has_projection=True),
        {
            "embeddings.word_gaps": (None,),
            "embeddings.word_rows": (None,),
            "embeddings.positions": (32, 3),
            "embeddings.types": (2, 3),
            "embeddings.projection.weight": (8, 3),
            "embeddings.projection.bias": (8,),
        },
    ),
    (
        LayerNormTuning(sites=("0.ffn_norm", "embeddings")),
        {
            "layers.0.ffn_norm.weight": (8,),
            "layers.0.ffn_norm.bias": (8,),
            "embeddings.weight": (3,),
            "embeddings.bias": (3,),
        },
    ),
    (
        BitFit(sites=("0.query", "embeddings")),
        {"layers.0.query.bias": (8,), "embeddings.bias": (3,)},
    ),
]


@pytest.mark.parametrize(("pet", "expected"), DOCUMENTED)
def test_tensors_have_the_documented_sizes(
    pet: AnyPet, expected: dict[str, tuple[int | None, ...]]
) -> None:
    """What acts before the projection has the embeddings' width."""
    specs = pet.tensor_specs(PROJECTED)

    assert {name: spec.shape for name, spec in specs.items()} == expected
    if "embeddings.word_rows" in specs:
        assert specs["embeddings.word_rows"].max_items == 50 * 3


def test_deltas_come_back_from_their_stored_form() -> None:
    """Words, positions, token types and projection."""
    pet = EmbeddingDelta(num_positions=32, num_types=2, has_projection=True)
    dense = dense_tensors(pet, PROJECTED)

    ops = pet.decode(PROJECTED, pet.encode(PROJECTED, dense))[0, "embeddings"]

    words = np.zeros((50, 3), np.float32)
    assert ops.word_deltas is not None
    assert ops.projection_delta is not None
    words[ops.word_deltas.rows] = ops.word_deltas.values
    assert words.any()
    np.testing.assert_array_equal(words, dense["embeddings.words"])
    for found, name in (
        (ops.position_deltas, "positions"),
        (ops.type_deltas, "types"),
        (ops.projection_delta.weight, "projection.weight"),
        (ops.projection_delta.bias, "projection.bias"),
    ):
        np.testing.assert_array_equal(found, dense[f"embeddings.{name}"])


@pytest.mark.parametrize("name", ["embeddings.words", "embeddings.positions"])
def test_deltas_as_wide_as_the_layers_are_refused(name: str) -> None:
    """They would not fit the tables that they are added to."""
    pet = EmbeddingDelta(num_positions=32)
    dense = dense_tensors(pet, PROJECTED)
    dense[name] = np.ones((len(dense[name]), 8), np.float32)

    with pytest.raises(TensorShapeMismatch, match=name):
        pet.encode(PROJECTED, dense)


def test_a_changed_projection_needs_one() -> None:
    """Where embeddings are as wide as the layers there is none."""
    with pytest.raises(SiteNotFound, match="projection"):
        EmbeddingDelta(has_projection=True).tensor_specs(SHAPE)


def test_a_projection_is_shared_where_nothing_is_said_of_it() -> None:
    """As tasks that were stored before it could change have it."""
    pet = EmbeddingDelta.model_validate({"kind": "embedding_delta", "num_types": 2})

    assert not pet.has_projection
    assert "has_projection" not in pet.model_dump(exclude_defaults=True)
    stored = pet.encode(PROJECTED, dense_tensors(pet, PROJECTED))
    assert pet.decode(PROJECTED, stored)[0, "embeddings"].projection_delta is None
