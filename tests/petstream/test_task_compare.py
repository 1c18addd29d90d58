"""`petstream tasks compare` on real tasks, and workers that go by what it found."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner
from typer.testing import Result as Ended

from messages.query import QueryParameters
from messages.result import Result
from petstream.bfloat16_check import MAX_ROWS, sample_rows
from petstream.commands import task_compare
from petstream.commands.tasks import app
from petstream.demo_samples import EXAMPLES_DIR
from petstream.kafka_connection import kafka_settings
from petstream.task_registry import task_registry
from producers.client import Client
from producers.connection import Connection
from producers.new_query import new_query
from tasks.artifact import open_artifact
from tasks.bfloat16_record import RECORD_FILE, comparison_of, comparisons_of
from tests.kept_figures import kept_figures
from tests.petstream.single_level import single_level_services, single_level_settings
from workers.backbone_store import find
from workers.local_level import LocalLevel
from workers.processor import Processor

TASK = "sms_spam"
ROWS = ("WINNER!! Claim your prize, call 09061701461 now", "see you at the station at six", "ok")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A real task's folder that says nothing of bfloat16 yet."""
    target = tmp_path / TASK
    shutil.copytree(EXAMPLES_DIR / "tasks" / TASK, target)
    (target / RECORD_FILE).unlink()
    return target


@pytest.fixture
def rows_file(tmp_path: Path) -> Path:
    """A few rows, with a field more than is read."""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": text, "label": "ham"}) + "\n" for text in ROWS))
    return path


def run(*arguments: object) -> Ended:
    return CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "160"})


def test_a_folder_says_how_its_levels_differ(folder: Path, rows_file: Path) -> None:
    """And the digest of the task stays: the record is no part of it."""
    digest = open_artifact(folder).digest

    ended = run("compare", folder, "--rows", rows_file, "--json")

    assert ended.exit_code == 0, ended.output
    (compared,) = json.loads(ended.stdout)["compared"]
    assert [level["level"] for level in compared["levels"]] == [0, 1]
    for level in compared["levels"]:
        assert level["passes"]
        assert (level["num_rows"], level["rows_from"]) == (len(ROWS), "rows.jsonl")
        assert 0 < level["largest_difference"] < 0.1 * level["deviation"]
    artifact = open_artifact(folder)
    assert artifact.digest == digest
    assert [level.level for level in comparisons_of(artifact)] == [0, 1]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("compare", "absent"), "absent is missing"),
        (("compare", "{folder}", "--rows", "absent.jsonl"), "No such file"),
        (("compare", "{folder}", "--rows", "{empty}"), "has no rows"),
        (("compare", "{folder}", "--rows", "{pairs}"), "takes single texts"),
        (("compare", "{folder}", "--rows", "{broken}"), "line 1: not JSON"),
    ],
)
def test_what_cannot_be_compared_is_said_in_one_line(
    folder: Path, tmp_path: Path, arguments: tuple[str, ...], complaint: str
) -> None:
    contents = {"empty": "\n", "pairs": '{"text": "a", "text_pair": "b"}\n', "broken": "{\n"}
    names = {"folder": folder}
    for name, text in contents.items():
        names[name] = tmp_path / f"{name}.jsonl"
        names[name].write_text(text)

    ended = run(*(argument.format(**names) for argument in arguments))

    assert ended.exit_code == 1
    assert complaint in ended.stderr
    assert not (folder / RECORD_FILE).exists()


@pytest.mark.parametrize("name", ["stsb", "banking77"])
def test_rows_are_the_tasks_own_or_built_in_ones(name: str) -> None:
    """Stsb has none of its own and takes pairs."""
    folder = EXAMPLES_DIR / "tasks" / name
    description = open_artifact(folder).description

    rows = sample_rows(description, folder, None)

    assert rows.origin == ("built-in" if name == "stsb" else "sample.jsonl")
    assert 1 < len(rows.texts) <= MAX_ROWS
    assert all(isinstance(text, tuple) == description.takes_pair for text in rows.texts)


def test_every_example_was_compared_as_it_is() -> None:
    """`bfloat16.json` of a task that is trained again is renewed: `petstream tasks compare`."""
    folders = [path.parent for path in (EXAMPLES_DIR / "tasks").glob("*/task.json")]
    assert folders
    for folder in folders:
        artifact = open_artifact(folder)
        for level in artifact.description.levels:
            assert comparison_of(artifact, level.level) is not None, folder.name


@pytest.mark.parametrize("has_bfloat16", [True, False])
def test_add_compares_where_the_processor_has_bfloat16_and_the_folder_does_not_say(
    folder: Path, rows_file: Path, monkeypatch: pytest.MonkeyPatch, has_bfloat16: bool
) -> None:
    processor = Processor(name="any", vendor="AMD", has_bfloat16=has_bfloat16)
    monkeypatch.setattr(task_compare, "this_processor", lambda: processor)
    with task_compare.comparer(rows_file) as comparing:
        found = comparing.if_wanted(folder, None)
        assert [level.level for level in found] == ([0, 1] if has_bfloat16 else [])
        assert comparing.if_wanted(EXAMPLES_DIR / "tasks" / TASK, None) == []
        assert comparing.if_wanted(folder, False) == []


def test_what_add_cannot_compare_by_itself_is_added_all_the_same(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    processor = Processor(name="any", vendor="AMD", has_bfloat16=True)
    monkeypatch.setattr(task_compare, "this_processor", lambda: processor)
    with task_compare.comparer(tmp_path / "absent.jsonl") as comparing:
        assert comparing.if_wanted(folder, None) == []
        assert "served in float32" in capsys.readouterr().err
        with pytest.raises(typer.Exit):
            comparing.if_wanted(folder, True)


@pytest.mark.kafka
@pytest.mark.slow
def test_a_worker_serves_in_bfloat16(broker: str, namespace: str, tmp_path: Path) -> None:
    """Forced here, as few test machines have it: the answers are the engine's in that type."""
    settings = single_level_settings(broker, namespace, tmp_path)
    folder = EXAMPLES_DIR / "tasks" / TASK
    task_registry(settings).add(folder)
    local = LocalLevel(
        find("minilm-l3", settings.models_dir),
        threads=1,
        precisions=("float32", "bfloat16"),
        figures_file=kept_figures(),
    )
    artifact = open_artifact(folder)
    full, rounded = (
        np.array([answer.confidence for answer in local.run([(loaded, text) for text in ROWS])])
        for loaded in (local.load(artifact, 0, "float32"), local.load(artifact, 0, "bfloat16"))
    )
    local.close()

    with single_level_services(settings, "--dtype", "bfloat16"):
        asked = [new_query(TASK, text, parameters=QueryParameters(level=0)) for text in ROWS]
        with Client(Connection(kafka_settings(settings), namespace)) as client:
            answered = list(client.ask_many(asked, timeout_s=120))

    assert all(isinstance(answer, Result) for answer in answered), answered
    found = np.array([answer.confidence for answer in answered if isinstance(answer, Result)])
    assert np.abs(full - rounded).max() > 0
    assert np.abs(found - rounded).max() < 0.1 * np.abs(full - rounded).max()
