"""Writing artifacts: whole or not at all, deterministic, never what a reader would refuse."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from tasks.artifact import Artifact, open_artifact
from tasks.artifact_writer import add_level, replace_cascade
from tasks.description import Cascade
from tasks.errors import (
    ArtifactExists,
    ArtifactMissing,
    LevelNotFound,
    NonFiniteWeights,
    TensorShapeMismatch,
    TooManyTokens,
)
from tests.tasks.artifacts import PETS, SHAPE, SHAPES, trained_level, write

CASCADE = Cascade(
    temperatures=(1.25,),
    threshold=0.9,
    ensemble_weights=(1.0,),
    accuracies=(0.875,),
    fitted_on_rows=300,
    target=0.85,
)


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("pet", PETS)
def test_equal_input_gives_equal_bytes(tmp_path: Path, pet: str) -> None:
    """One training run has one digest, wherever it is written."""
    first = write(tmp_path / "a", trained_level(PETS[pet]))
    second = write(tmp_path / "b", trained_level(PETS[pet]))

    assert contents(first.folder) == contents(second.folder)
    assert first.digest == second.digest


def test_a_folder_holds_the_documented_files_and_nothing_else(tmp_path: Path) -> None:
    """No left-overs beside it either."""
    write(tmp_path / "a", trained_level(), trained_level(level=1))

    assert sorted(contents(tmp_path / "a")) == [
        "level-0.safetensors",
        "level-1.safetensors",
        "task.json",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_an_existing_folder_is_not_overwritten_by_chance(tmp_path: Path) -> None:
    """A trained task is worth hours."""
    before = contents(write(tmp_path / "a").folder)

    with pytest.raises(ArtifactExists):
        write(tmp_path / "a", trained_level(seed=5))

    assert contents(tmp_path / "a") == before


def test_overwriting_keeps_the_other_files(tmp_path: Path) -> None:
    """A README beside the weights is the user's."""
    write(tmp_path / "a")
    (tmp_path / "a" / "README.md").write_text("mine")

    artifact = write(tmp_path / "a", trained_level(seed=5), overwrite=True)

    artifact.validate(SHAPES)
    assert (tmp_path / "a" / "README.md").read_text() == "mine"
    np.testing.assert_array_equal(
        artifact.load_level(0, SHAPE).head_weight, trained_level(seed=5).head_weight
    )


def test_nothing_is_written_for_weights_that_are_not_valid(tmp_path: Path) -> None:
    """NaN, a head for other labels, more tokens than the backbone has: typed, and no folder."""
    level = trained_level()
    diverged = replace(level, head_bias=np.full(3, np.nan))
    other_labels = trained_level(num_labels=4)
    too_long = replace(level, max_tokens=33)

    with pytest.raises(NonFiniteWeights):
        write(tmp_path / "a", diverged)
    with pytest.raises(TensorShapeMismatch, match="labels"):
        write(tmp_path / "a", other_labels)
    with pytest.raises(TooManyTokens):
        write(tmp_path / "a", too_long)
    with pytest.raises(ValidationError):
        write(tmp_path / "a", name="Not A Name")

    assert list(tmp_path.iterdir()) == []


def test_an_artifact_that_is_there_survives_a_refused_overwrite(tmp_path: Path) -> None:
    """Staged and read back before anything is replaced."""
    before = contents(write(tmp_path / "a").folder)

    with pytest.raises(TensorShapeMismatch):
        write(tmp_path / "a", trained_level(num_labels=4), overwrite=True)

    assert contents(tmp_path / "a") == before


def test_a_level_is_added_beside_the_others(tmp_path: Path) -> None:
    """Levels are trained one after the other; the first stays byte for byte."""
    write(tmp_path / "a", trained_level(), cascade=CASCADE)
    before = contents(tmp_path / "a")

    artifact = add_level(tmp_path / "a", trained_level(PETS["diff"], level=1))

    artifact.validate(SHAPES)
    assert [level.level for level in artifact.description.levels] == [0, 1]
    assert [level.pet.kind for level in artifact.description.levels] == ["lora", "diff"]
    assert contents(tmp_path / "a")["level-0.safetensors"] == before["level-0.safetensors"]


def test_adding_a_level_drops_the_cascade(tmp_path: Path) -> None:
    """It was fitted for other levels: no threshold is better than a wrong one."""
    write(tmp_path / "a", trained_level(), cascade=CASCADE)

    assert add_level(tmp_path / "a", trained_level(level=1)).description.cascade is None


def test_a_level_is_replaced(tmp_path: Path) -> None:
    """Training a level again."""
    write(tmp_path / "a", trained_level(), trained_level(level=1))

    artifact = add_level(tmp_path / "a", trained_level(PETS["ia3"], seed=4))

    artifact.validate(SHAPES)
    assert [level.pet.kind for level in artifact.description.levels] == ["ia3", "lora"]


def test_levels_ascend_in_whatever_order_they_are_added(tmp_path: Path) -> None:
    """The large one may be trained first."""
    write(tmp_path / "a", trained_level(level=1))

    artifact = add_level(tmp_path / "a", trained_level(level=0))

    assert [level.level for level in artifact.description.levels] == [0, 1]


def test_a_level_cannot_be_added_to_nothing(tmp_path: Path) -> None:
    """A task has a name and labels first."""
    with pytest.raises(ArtifactMissing):
        add_level(tmp_path / "a", trained_level())


def test_a_cascade_is_put_in_and_taken_out(tmp_path: Path) -> None:
    """The weights stay, the digest changes and returns."""
    plain = write(tmp_path / "a")

    fitted = replace_cascade(tmp_path / "a", CASCADE)

    fitted.validate(SHAPES)
    assert fitted.description.cascade == CASCADE
    assert fitted.digest != plain.digest
    assert replace_cascade(tmp_path / "a", None).digest == plain.digest


def test_a_cascade_for_another_number_of_levels_is_refused(tmp_path: Path) -> None:
    """The description on disk stays as it was."""
    artifact = write(tmp_path / "a", trained_level(), trained_level(level=1))

    with pytest.raises(ValidationError, match="temperatures"):
        replace_cascade(tmp_path / "a", CASCADE)

    assert open_artifact(tmp_path / "a").digest == artifact.digest


def test_written_weights_are_read_by_level(tmp_path: Path) -> None:
    """No level is read for another."""
    artifact: Artifact = write(
        tmp_path / "a", trained_level(seed=1), trained_level(level=2, seed=2)
    )

    np.testing.assert_array_equal(
        artifact.load_level(2, SHAPE).head_weight, trained_level(seed=2).head_weight
    )
    with pytest.raises(LevelNotFound):
        artifact.load_level(1, SHAPE)


def test_the_description_is_readable_text(tmp_path: Path) -> None:
    """Indented JSON with a final line break, for people and for version control."""
    raw = (write(tmp_path / "a").folder / "task.json").read_text()

    assert raw.endswith("}\n")
    assert json.loads(raw)["labels"] == ["no", "perhaps", "yes"]
    assert len(raw.splitlines()) > 20
