"""`petstream tasks run`: one row, the engine's own logits, one line where it cannot be."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from petstream.commands.tasks import app
from petstream.settings import load_settings
from tasks.artifact import open_artifact
from tasks.backbone_shape import read_shape
from tasks.store import TaskStore
from tests.kept_figures import kept_figures
from tests.workers.stored_tasks import write_bare_embedding
from workers.backbone_store import find
from workers.local_level import LocalLevel

BANKING = Path(__file__).parents[2] / "examples" / "tasks" / "banking77"
TEXT = "I think my card was stolen"


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["run", *map(str, arguments)])


@pytest.mark.parametrize("level", [0, 1])
def test_a_folder_answers_with_the_logits_of_the_engine(level: int) -> None:
    """`--level` picks the backbone; the document holds what the Python interface gives."""
    artifact = open_artifact(BANKING)
    backbone = artifact.description.level(level).backbone.name
    local = LocalLevel(
        find(backbone, load_settings().models_dir), threads=1, figures_file=kept_figures()
    )
    (expected,) = local.run([(local.load(artifact, level), TEXT)])
    local.close()

    result = _run(BANKING, "--text", TEXT, "--level", level, "--logits", "--json")

    document = json.loads(result.stdout)
    assert document["labels"] == ["lost_or_stolen_card"]
    assert document["logits"] == pytest.approx(expected.logits.tolist(), abs=1e-5)
    assert (document["level"], document["digest"]) == (level, artifact.digest)


def test_an_embedding_shows_the_beginning_of_its_vector_and_all_of_it_as_json(
    tmp_path: Path,
) -> None:
    """The vector has length 1; the logits are what the head gives before that."""
    backbone = find("minilm-l3", load_settings().models_dir)
    folder = write_bare_embedding(tmp_path / "sentences", backbone).folder

    document = json.loads(_run(folder, "--text", TEXT, "--logits", "--json").stdout)
    lines = _run(folder, "--text", TEXT).stdout.splitlines()

    vector, logits = (np.array(document[name]) for name in ("embedding", "logits"))
    assert vector.shape == (384,)
    assert np.abs(vector - logits / np.linalg.norm(logits)).max() < 1e-6
    shown = ", ".join(f"{number:.4f}" for number in vector[:4])
    assert f"embedding: [{shown}, ...] of 384 dimensions" in lines


def test_a_task_of_the_store_is_found_by_name_and_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest without a number; one that is not there is named."""
    shapes = {
        name: read_shape(find(name, load_settings().models_dir))
        for name in ("minilm-l3", "minilm-l6")
    }
    TaskStore(tmp_path).add(BANKING, shapes)
    monkeypatch.setenv("PETSTREAM_TASKS_DIR", str(tmp_path))

    found = [
        json.loads(_run(task, "--text", TEXT, "--json").stdout)
        for task in ("banking77", "banking77@1")
    ]
    absent = _run("banking77@2", "--text", TEXT)

    assert [document["task_revision"] for document in found] == [1, 1]
    assert absent.exit_code == 1
    assert "TaskNotInStore" in absent.stderr
    assert "revision 2" in absent.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("no/such/folder", "--text", "x"), "no folder no/such/folder"),
        ((BANKING, "--text", ""), "nothing that a model can read"),
        ((BANKING, "--text", "x", "--pair", "y"), "takes one text"),
        ((BANKING, "--text", "x", "--level", 5), "has levels [0, 1], not 5"),
    ],
)
def test_what_cannot_be_run_is_one_line(arguments: tuple[object, ...], message: str) -> None:
    """Exit 1, the type of the error and what to do."""
    result = _run(*arguments)

    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
