"""`petstream tasks import` and `export` as a user runs them, on a tiny backbone."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from messages.topics import TopicNames
from petstream.commands.tasks import app
from tasks.artifact import open_artifact
from tests.tasks.importers.checkpoints import lora_config, lora_tensors, write_peft
from tests.tasks.importers.sentence_folders import add_modules
from tests.tasks.importers.tiny_models import save_backbone
from transport.settings import KafkaSettings
from transport.topics import create_topics

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A machine's backbones: one, `tiny-bert`."""
    folder = tmp_path_factory.mktemp("models")
    (save_backbone(folder / "tiny-bert") / "tokenizer.json").write_text("{}")
    return folder


@pytest.fixture
def run(models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `petstream tasks` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    environment = {
        "PETSTREAM_MODELS_DIR": str(models_dir),
        "PETSTREAM_TASKS_DIR": str(tmp_path / "store"),
    }
    return lambda *arguments: CliRunner().invoke(app, list(map(str, arguments)), env=environment)


def test_a_dry_run_shows_what_would_be_taken_and_writes_nothing(run: Run, tmp_path: Path) -> None:
    write_peft(tmp_path / "peft", lora_tensors() | {"stray": lora_tensors().popitem()[1]})

    ended = run("import", "peft", "--backbone", "tiny-bert", "--dry-run", "--json")

    report = json.loads(ended.stdout)
    assert ended.exit_code == 0
    assert report["origin"] == "peft"
    assert report["pet"]["kind"] == "lora"
    assert report["taken"] == sorted(lora_tensors())
    assert [f["code"] for f in report["findings"]] == ["unused_key", "labels_unnamed"]
    assert report["folder"] is None
    assert [path.name for path in tmp_path.iterdir()] == ["peft"]


def test_an_import_writes_a_task_and_says_how_to_add_it(run: Run, tmp_path: Path) -> None:
    write_peft(tmp_path / "peft")
    (tmp_path / "labels.txt").write_text("no\nperhaps\nyes\n")

    ended = run(
        "import", "peft", "--name", "mine", "--backbone", "tiny-bert", "--labels", "labels.txt",
        "--licence", "CC0", "--pair",
    )  # fmt: skip

    description = open_artifact(tmp_path / "mine").description
    assert ended.exit_code == 0
    assert "petstream tasks add mine" in ended.stdout
    assert description.labels == ("no", "perhaps", "yes")
    assert (description.name, description.licence, description.takes_pair) == ("mine", "CC0", True)


def test_warnings_go_to_standard_error(run: Run, tmp_path: Path) -> None:
    config = lora_config(base_model_name_or_path="bert-base-uncased")
    write_peft(tmp_path / "peft", config=config)

    ended = run("import", "peft", "--backbone", "tiny-bert", "--labels", "a,b,c", "--dry-run")

    assert "warning: other_base: it was trained on 'bert-base-uncased'" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--backbone", "absent", "--dry-run"], 1, "BackboneUnknown"),
        (["--backbone", "tiny-bert", "--labels", "a,b", "--dry-run"], 1, "LabelsMismatch"),
        (["--backbone", "tiny-bert", "--max-tokens", "999", "--out", "a"], 1, "TooMany"),
        (["--backbone", "tiny-bert", "--name", "Not A Name"], 2, "name: "),
        (["--level", "7"], 2, "--backbone"),
        (["--backbone", "tiny-bert"], 2, "is the checkpoint itself: give `--name`"),
        (["--backbone", "tiny-bert", "--out", "."], 1, "ArtifactExists"),
    ],
)
def test_what_is_wrong_is_one_line(
    arguments: list[str], code: int, words: str, run: Run, tmp_path: Path
) -> None:
    write_peft(tmp_path / "peft")

    ended = run("import", "peft", *arguments)

    assert ended.exit_code == code
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith("petstream: ")
    assert words in last


@pytest.mark.parametrize("fields", [[], ["--format", "peft"]])
def test_an_exported_task_is_a_folder_to_use_again(
    fields: list[str], run: Run, tmp_path: Path
) -> None:
    write_peft(tmp_path / "peft")
    shared: list[Any] = ["--backbone", "tiny-bert", "--name", "mine"]
    run("import", "peft", *shared)

    ended = run("export", "mine", "--out", "out", *fields, "--json")

    assert ended.exit_code == 0
    report = json.loads(ended.stdout)
    if fields:
        again = run("import", "out", *shared, "--out", "again", "--json")
        assert json.loads(again.stdout)["digest"] == report["digest"]
    else:
        assert open_artifact(tmp_path / "out").digest == report["digest"]


def test_a_folder_of_sentence_transformers_is_an_embedding(
    run: Run, models_dir: Path, tmp_path: Path
) -> None:
    """Without a word on its kind; what its vectors are is shown."""
    add_modules(shutil.copytree(models_dir / "tiny-bert", tmp_path / "model"))
    shared: list[Any] = ["--backbone", "tiny-bert", "--name", "mine"]

    report = json.loads(run("import", "model", *shared, "--json").stdout)
    shown = run("import", "model", *shared, "--no-normalise", "--dry-run")
    wrong = run("import", "model", *shared, "--kind", "regression", "--normalise")

    assert (report["origin"], report["kind"]) == ("sentence-transformers", "embedding")
    assert report["embedding"] == {"dimensions": 16, "normalise": True}
    assert open_artifact(tmp_path / "mine").digest == report["digest"]
    assert "16 dimensions" in shown.stdout
    assert wrong.exit_code == 2
    assert "has no vector to normalise" in wrong.stderr


def test_a_task_that_is_nowhere_is_said_so(run: Run) -> None:
    ended = run("export", "absent", "--out", "out")

    assert ended.exit_code == 1
    assert "TaskNotInStore" in ended.stderr


@pytest.mark.kafka
@pytest.mark.slow
def test_an_import_that_is_added_serves(
    run: Run, broker: str, namespace: str, tmp_path: Path
) -> None:
    create_topics(KafkaSettings(bootstrap_servers=broker), TopicNames(namespace), partitions=1)
    write_peft(tmp_path / "peft")

    ended = run(
        "import", "peft", "--name", "mine", "--backbone", "tiny-bert", "--add", "--json",
        "--bootstrap-servers", broker, "--namespace", namespace,
    )  # fmt: skip

    assert ended.exit_code == 0, ended.stderr
    assert json.loads(ended.stdout)["revision"] == 1
    shown = run("show", "mine", "--bootstrap-servers", broker, "--namespace", namespace, "--json")
    assert json.loads(shown.stdout)["levels"][0]["pet_kind"] == "lora"
