"""Artifacts of embeddings: which tensors their heads have, and what they cannot be."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from pydantic import ValidationError

from tasks.artifact import Artifact, open_artifact
from tasks.artifact_writer import add_level, write_artifact
from tasks.description import EmbeddingLayout, HeadLayout
from tasks.errors import DimensionsMismatch, UnexpectedTensor
from tasks.pets.bitfit import BitFit
from tests.tasks.artifacts import SHAPE, floats, trained_level

WEIGHTS = "level-0.safetensors"
HIDDEN = SHAPE.hidden_size
HEADS: dict[str, tuple[HeadLayout | None, int, dict[str, tuple[int, ...]]]] = {
    "identity": (HeadLayout(output="none"), HIDDEN, {}),
    "projection": (None, 3, {"head.weight": (3, HIDDEN), "head.bias": (3,)}),
    "activation": (
        HeadLayout(hidden="own", features=5, activation="tanh", output="none"),
        5,
        {"head.hidden.weight": (5, HIDDEN), "head.hidden.bias": (5,)},
    ),
    "pooler": (HeadLayout(hidden="pooler", activation="tanh", output="none"), HIDDEN, {}),
    "two layers": (
        HeadLayout(hidden="own", activation="gelu"),
        3,
        {
            "head.hidden.weight": (HIDDEN, HIDDEN),
            "head.hidden.bias": (HIDDEN,),
            "head.weight": (3, HIDDEN),
            "head.bias": (3,),
        },
    ),
}
"""Of embeddings: the layout, the dimensions, and the tensors that the file then has."""


def write_embedding(folder: Path, head: str, *, dimensions: int | None = None) -> Artifact:
    """Write an embedding whose backbone is unchanged."""
    layout, outputs, tensors = HEADS[head]
    rng = np.random.default_rng(0)
    values = {name: floats(rng, *shape) for name, shape in tensors.items()}
    level = replace(
        trained_level(BitFit(sites=())),
        head=layout,
        head_weight=values.get("head.weight"),
        head_bias=values.get("head.bias"),
        hidden_weight=values.get("head.hidden.weight"),
        hidden_bias=values.get("head.hidden.bias"),
    )
    return write_artifact(
        folder,
        name="sentences",
        kind="embedding",
        labels=(),
        embedding=EmbeddingLayout(dimensions=dimensions or outputs, normalise=True),
        takes_pair=False,
        source="made up",
        licence="CC0",
        levels=(level,),
    )


@pytest.mark.parametrize("head", HEADS)
def test_the_head_of_an_embedding_is_told_by_its_description(tmp_path: Path, head: str) -> None:
    """The file has the tensors that the layout calls for, and of an unchanged backbone none."""
    layout, dimensions, tensors = HEADS[head]

    artifact = write_embedding(tmp_path / "a", head)

    stored = safetensors.numpy.load((tmp_path / "a" / WEIGHTS).read_bytes())
    assert {name: values.shape for name, values in stored.items()} == tensors
    assert artifact.description.num_outputs == dimensions
    weights = artifact.load_level(0, SHAPE)
    assert not weights.sites
    assert (weights.head_weight is None) == ("head.weight" not in tensors)
    assert (weights.head_hidden is None) == (layout is None or layout.hidden is None)


@pytest.mark.parametrize("head", ["identity", "pooler"])
def test_dimensions_that_the_head_does_not_give_are_told(tmp_path: Path, head: str) -> None:
    """Without a last layer they are those of the backbone."""
    with pytest.raises(DimensionsMismatch, match="dimensions is 7, the head gives 8"):
        write_embedding(tmp_path / "a", head, dimensions=7)


def test_a_layer_that_the_description_does_not_name_is_told(tmp_path: Path) -> None:
    """The vectors would be others than those described."""
    write_embedding(tmp_path / "a", "identity")
    changed = safetensors.numpy.save({"head.weight": np.eye(HIDDEN, dtype=np.float16)})
    (tmp_path / "a" / WEIGHTS).write_bytes(changed)
    described = json.loads((tmp_path / "a" / "task.json").read_bytes())
    described["levels"][0]["sha256"] = hashlib.sha256(changed).hexdigest()
    (tmp_path / "a" / "task.json").write_text(json.dumps(described))

    with pytest.raises(UnexpectedTensor, match=r"head\.weight"):
        open_artifact(tmp_path / "a").load_level(0, SHAPE)


def test_an_embedding_gets_no_second_level(tmp_path: Path) -> None:
    """Nothing is changed then."""
    artifact = write_embedding(tmp_path / "a", "projection")

    with pytest.raises(ValidationError, match="different spaces"):
        add_level(tmp_path / "a", trained_level(level=1))
    assert open_artifact(tmp_path / "a").digest == artifact.digest
