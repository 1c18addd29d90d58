"""docs/tasks.md says what the code does: its example runs, its tables are complete."""

import inspect
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks import errors
from tasks.artifact import open_artifact
from tasks.backbone_shape import read_shape
from tasks.description import (
    BackboneReference,
    Cascade,
    LevelDescription,
    TaskDescription,
)
from tasks.errors import ArtifactError, ArtifactExists, LevelNotFound, TaskError, TensorMismatch
from tasks.gap_coding import decode_gaps
from tasks.pets.kinds import PET_KINDS

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "tasks.md").read_text()
KINDS_PAGE = (DOCS / "pet-kinds.md").read_text()


def test_the_example_makes_a_valid_artifact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copied from the page and run."""
    config = {
        "model_type": "bert",
        "num_hidden_layers": 3,
        "hidden_size": 384,
        "num_attention_heads": 12,
        "intermediate_size": 1536,
        "vocab_size": 30522,
        "max_position_embeddings": 512,
    }
    (tmp_path / "minilm-l3").mkdir()
    (tmp_path / "minilm-l3" / "config.json").write_text(json.dumps(config))
    monkeypatch.chdir(tmp_path)
    (*_, example) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)

    exec(compile(example, "docs/tasks.md", "exec"), {})

    artifact = open_artifact(tmp_path / "my-task")
    artifact.validate({"minilm-l3": read_shape(tmp_path / "minilm-l3")})
    assert artifact.description.levels[0].pet.kind == "bitfit"


@pytest.mark.parametrize("number", [0, 1])
def test_the_examples_of_one_row_run(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copied from the page and run in the repository."""
    monkeypatch.chdir(DOCS.parent)
    example = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[number]
    names: dict[str, Any] = {}

    exec(compile(example, "docs/tasks.md", "exec"), names)

    answered = names["answered"] if number == 0 else names["results"][0]
    assert answered.answer.labels == ("lost_or_stolen_card",)


def test_the_gap_code_of_the_page_is_ours() -> None:
    """`[3, 255, 7]` is 3 and 266."""
    assert "`[3, 255, 7]` is positions 3 and\n3 + 1 + 255 + 7 = 266" in PAGE
    assert decode_gaps(np.array([3, 255, 7], np.uint8), 1000).tolist() == [3, 266]


@pytest.mark.parametrize("model", [TaskDescription, LevelDescription, BackboneReference, Cascade])
def test_every_field_is_on_the_page(model: type) -> None:
    """By its name."""
    for field in model.model_fields:  # type: ignore[attr-defined]
        assert f"`{field}`" in PAGE, field


@pytest.mark.parametrize("kind", PET_KINDS)
def test_every_kind_of_pet_has_its_section(kind: str) -> None:
    """A row of the table, and every hyperparameter; those of a relative may be named there."""
    assert f"\n| `{kind}` |" in KINDS_PAGE
    (section,) = re.findall(rf"\n## {kind}\n(.*?)(?=\n## |\Z)", KINDS_PAGE, re.DOTALL)
    relatives = re.findall(r"those of `(\w+)`", section)
    sections = section + "".join(
        part
        for relative in relatives
        for part in re.findall(rf"\n## {relative}\n(.*?)(?=\n## |\Z)", KINDS_PAGE, re.DOTALL)
    )
    for field in PET_KINDS[kind].model_fields:
        assert field == "kind" or f"`{field}`" in sections, field


def test_every_error_of_an_artifact_is_on_the_page() -> None:
    """Those that a check of a folder can raise."""
    raised_elsewhere = {ArtifactError, TensorMismatch, LevelNotFound, ArtifactExists}
    for name, error in inspect.getmembers(errors, inspect.isclass):
        if issubclass(error, ArtifactError) and error not in raised_elsewhere:
            assert f"`{name}`" in PAGE, name


def test_every_error_is_in_its_tree() -> None:
    """The docstring of `tasks.errors` shows each class below its parent."""
    assert errors.__doc__ is not None
    names = re.findall(r"(?:-- |^    )(\w+)", errors.__doc__, re.MULTILINE)

    classes = dict(inspect.getmembers(errors, inspect.isclass))

    assert sorted(names) == sorted(classes)
    assert all(issubclass(error, TaskError) for error in classes.values())
