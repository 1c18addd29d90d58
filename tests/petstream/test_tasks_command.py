"""`petstream tasks` as a user runs it: a real broker, real folders, and processes once."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from messages.topics import TopicNames
from petstream.commands.tasks import app
from tasks.artifact_writer import TrainedLevel
from tasks.description import BackboneReference
from tests.tasks.artifacts import PETS, SHAPE, trained_level, write
from transport.settings import KafkaSettings
from transport.topics import create_topics

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

WEIGHTS = b"the bytes of a backbone's weights, which adding a task only hashes"

Ended = subprocess.CompletedProcess[str]
Tasks = Callable[..., Ended]


@pytest.fixture
def environment(broker: str, namespace: str, tmp_path: Path) -> dict[str, str]:
    """Settings of a machine with one backbone, `tiny`, on a broker with topics."""
    create_topics(KafkaSettings(bootstrap_servers=broker), TopicNames(namespace), partitions=1)
    backbone = tmp_path / "models" / "tiny"
    backbone.mkdir(parents=True)
    config = {
        "model_type": "bert",
        "hidden_act": "gelu",
        "num_hidden_layers": SHAPE.num_layers,
        "hidden_size": SHAPE.hidden_size,
        "num_attention_heads": SHAPE.num_heads,
        "intermediate_size": SHAPE.intermediate_size,
        "vocab_size": SHAPE.vocab_size,
        "max_position_embeddings": SHAPE.max_positions,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
    }
    (backbone / "config.json").write_text(json.dumps(config))
    (backbone / "model.safetensors").write_bytes(WEIGHTS)
    (backbone / "tokenizer.json").write_text("{}")
    return {
        **os.environ,
        "KAFKA_BOOTSTRAP_SERVERS": broker,
        "PETSTREAM_NAMESPACE": namespace,
        "PETSTREAM_MODELS_DIR": str(tmp_path / "models"),
        "PETSTREAM_TASKS_DIR": str(tmp_path / "store"),
        "PETSTREAM_STATE_DIR": str(tmp_path / "state"),
        "COLUMNS": "200",
    }


@pytest.fixture
def tasks(environment: dict[str, str]) -> Tasks:
    """Return a function that runs `petstream tasks ...` in this process."""

    def run(*arguments: object, **changed: str) -> Ended:
        ended = CliRunner().invoke(app, [*map(str, arguments)], env=environment | changed)
        if ended.exception is not None and not isinstance(ended.exception, SystemExit):
            raise ended.exception
        return Ended([*map(str, arguments)], ended.exit_code, ended.stdout, ended.stderr)

    return run


@pytest.fixture
def processes(environment: dict[str, str], tmp_path: Path) -> Tasks:
    """Return a function that runs `petstream tasks ...` as a process to its end."""

    def run(*arguments: object) -> Ended:
        return subprocess.run(
            [sys.executable, "-m", "petstream", "tasks", *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment,
            check=False,
        )

    return run


def level(seed: int = 0, pet: str = "lora", digest: str | None = None) -> TrainedLevel:
    """Return a level trained on the machine's backbone, or on one with another digest."""
    digest = digest or "sha256:" + hashlib.sha256(WEIGHTS).hexdigest()
    return replace(
        trained_level(PETS[pet], seed=seed), backbone=BackboneReference(name="tiny", digest=digest)
    )


def document(ended: Ended) -> Any:  # noqa: ANN401 - JSON
    """Return what a command printed, which succeeded."""
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def complaint(ended: Ended) -> str:
    """Return the one line that a failed command printed."""
    assert ended.returncode == 1
    assert ended.stdout == ""
    lines = ended.stderr.splitlines()
    assert len(lines) == 1, ended.stderr
    return lines[0]


def test_a_backbone_that_the_levels_workers_do_not_run(tasks: Tasks, tmp_path: Path) -> None:
    """Added as told, with a warning that names the backbone and what to do."""
    ended = tasks("add", write(tmp_path / "first", level()).folder, "--json")

    assert len(document(ended)["added"]) == 1
    assert "warning: level 0 of weather is on tiny, and a worker of level 0 runs" in ended.stderr
    assert "--backbone tiny" in ended.stderr


def test_the_life_of_a_task(tasks: Tasks, tmp_path: Path) -> None:
    """Added, added anew, named, shown, retired, brought back."""
    first = write(tmp_path / "first", level(seed=1)).folder
    second = write(tmp_path / "second", level(seed=2, pet="mask")).folder

    added = document(tasks("add", first, second, "--json"))["added"]
    again = document(tasks("add", first, "--json"))["added"]
    document(tasks("alias", "weather", "stable", 1, "--json"))
    listed = document(tasks("list", "--json"))["tasks"]
    shown = document(tasks("show", "weather", "--json"))

    assert [(task["name"], task["revision"]) for task in added] == [("weather", 1), ("weather", 2)]
    assert [(task["revision"], task["default_revision"]) for task in again] == [(1, 2)]
    assert len(listed) == 1
    assert listed[0]["aliases"] == {"stable": 1}
    assert listed[0]["levels"] == [
        {
            "level": 0,
            "backbone": "tiny",
            "pet_kind": "mask",
            "max_tokens": 32,
            "truncation": "head",
        }
    ]
    sizes = [
        (tmp_path / name / "level-0.safetensors").stat().st_size for name in ("first", "second")
    ]
    assert [found["stored"]["bytes"]["0"] for found in shown["revisions"]] == sizes
    assert [found["reference"]["digest"] for found in shown["revisions"]] == [
        task["digest"] for task in added
    ]

    assert document(tasks("retire", "weather", "--json"))["retired"]
    assert document(tasks("list", "--json"))["tasks"][0]["retired"]
    assert not document(tasks("add", second, "--json"))["added"][0]["retired"]


def test_people_get_tables(processes: Tasks, tmp_path: Path) -> None:
    """Everything that --json has, in words."""
    folder = write(tmp_path / "a", level()).folder

    assert "weather@1 serves" in processes("add", folder).stdout
    listed = processes("list").stdout
    shown = processes("show", "weather").stdout
    assert "weather is retired" in processes("retire", "weather").stdout

    for text in ("weather", "serving", "single_label", "0: tiny lora"):
        assert text in listed
    for text in ("default is weather@1", "tiny", "lora", "32"):
        assert text in shown


def test_what_cannot_be_done_is_told_in_one_line(tasks: Tasks, tmp_path: Path) -> None:
    """Typed, exit 1, with what to do."""
    folder = write(tmp_path / "a", level()).folder
    assert tasks("add", folder).returncode == 0

    assert "UnknownTask" in complaint(tasks("retire", "climate"))
    assert "UnknownTask" in complaint(tasks("alias", "climate", "stable", 1))
    assert "UnknownTask" in complaint(tasks("show", "climate"))
    assert "UnknownRevision" in complaint(tasks("alias", "weather", "stable", 2))
    assert "BadAlias" in complaint(tasks("alias", "weather", "7", 1))
    assert "ArtifactMissing" in complaint(tasks("add", tmp_path / "nowhere"))


def test_bad_artifacts_are_not_registered(tasks: Tasks, tmp_path: Path) -> None:
    """Damaged, for other weights, for a backbone that is not there."""
    damaged = write(tmp_path / "damaged", level()).folder
    (damaged / "level-0.safetensors").write_bytes(b"\x80\x04 pickle")
    foreign = write(tmp_path / "foreign", level(digest="sha256:" + "0" * 64)).folder
    orphan = write(tmp_path / "orphan", level()).folder

    assert "ChecksumMismatch" in complaint(tasks("add", damaged))
    assert "BackboneMismatch" in complaint(tasks("add", foreign))
    shutil.rmtree(tmp_path / "models" / "tiny")
    assert "BackboneUnknown" in complaint(tasks("add", orphan))

    assert document(tasks("list", "--json")) == {"tasks": []}
    assert not (tmp_path / "store").exists()


def test_a_revision_that_the_store_has_lost_is_shown(tasks: Tasks, tmp_path: Path) -> None:
    """Registered, but not here: why no worker of this machine can answer."""
    tasks("add", write(tmp_path / "a", level()).folder)
    shutil.rmtree(tmp_path / "store" / "weather")

    shown = document(tasks("show", "weather", "--json"))

    assert "TaskNotInStore" in shown["revisions"][0]["stored"]["problem"]


def test_a_namespace_without_topics_is_told(tasks: Tasks) -> None:
    """With the command that makes them."""
    ended = tasks("list", "--namespace", "nowhere")

    assert "petstream topics create" in complaint(ended)


@pytest.mark.parametrize(
    "arguments",
    [
        ("add",),
        ("show",),
        ("alias", "weather", "stable"),
        ("alias", "weather", "stable", "0"),
        ("alias", "weather", "stable", "one"),
        ("retire",),
        ("dance",),
        ("list", "--colour"),
    ],
)
def test_wrong_use_exits_with_2(tasks: Tasks, arguments: tuple[str, ...]) -> None:
    """Without a broker being asked."""
    assert tasks(*arguments, KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1").returncode == 2


@pytest.mark.parametrize("command", ["add", "list", "show", "alias", "retire"])
def test_help_has_an_example(tasks: Tasks, command: str) -> None:
    """Every command of the group."""
    ended = tasks(command, "--help")

    assert ended.returncode == 0
    assert f"Example: petstream tasks {command}" in ended.stdout
