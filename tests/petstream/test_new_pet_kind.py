"""docs/add-a-pet-kind.md, followed to the letter: a kind from outside is trained and served."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from petstream.kafka_connection import kafka_settings
from petstream.settings import Settings
from producers.client import Client
from producers.connection import Connection
from producers.new_query import new_query
from tests.petstream.single_level import single_level_services, single_level_settings

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "add-a-pet-kind.md").read_text()
ROWS = ROOT / "tests" / "tasks" / "sms_rows.jsonl"
TEXT = "WINNER! Call now to claim your prize"
ANSWER_LIMIT_S = 120.0
COMMAND_LIMIT_S = 300.0


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Install the page's distribution beside ours, as its step 3 does, for child processes."""
    folder = tmp_path / "shift-pet"
    folder.mkdir()
    for name, block in re.findall(r"`([\w.-]+)`:\n\n```\w+\n(.*?)```", PAGE, re.DOTALL):
        (folder / name).write_text(block)
    assert {path.name for path in folder.iterdir()} == {"pyproject.toml", "shift_pet.py"}
    site = tmp_path / "site"
    (command,) = re.findall(r"^pip (install .*) \./shift-pet$", PAGE, re.MULTILINE)
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "pip", *command.split(), "--target", site, folder], check=True)
    return {**os.environ, "PYTHONPATH": str(site)}


@pytest.fixture
def settings(broker: str, namespace: str, tmp_path: Path) -> Settings:
    """Settings of a namespace whose topics are there."""
    return single_level_settings(broker, namespace, tmp_path)


def test_the_page_makes_a_kind_that_is_trained_served_and_answered(
    environment: dict[str, str], settings: Settings, tmp_path: Path
) -> None:
    """Each command of its last step, and the answer through Kafka is that of `tasks run`."""
    commands = re.findall(r"^petstream (.*)$", PAGE.partition("## 4.")[2], re.MULTILINE)
    train, run, add, query = (_words(command) for command in commands)
    environment = {**settings.environment(), "PYTHONPATH": environment["PYTHONPATH"]}
    train[train.index("rows.jsonl")] = str(ROWS)
    assert query == ["query", "--task", "my-shift", TEXT]

    _petstream([*train, "--epochs", "1", "--threads", "1"], environment, tmp_path)
    alone = json.loads(_petstream([*run, "--json"], environment, tmp_path))
    with single_level_services(settings, environment=environment):
        _petstream(add, environment, tmp_path)
        with Client(Connection(kafka_settings(settings), settings.namespace)) as client:
            answer = client.ask(new_query("my-shift", TEXT), timeout_s=ANSWER_LIMIT_S)

    description = json.loads((tmp_path / "my-shift" / "task.json").read_text())
    assert description["levels"][0]["pet"] == {"kind": "shift", "first_layer": 1}
    assert list(answer.labels) == alone["labels"]
    assert list(answer.scores) == pytest.approx(alone["scores"], abs=1e-5)


def test_a_kind_that_is_not_installed_is_refused(tmp_path: Path) -> None:
    """With the kinds that there are."""
    train, *_ = re.findall(r"^petstream (train .*)$", PAGE, re.MULTILINE)

    refused = subprocess.run(
        [sys.executable, "-m", "petstream", *_words(train)], cwd=tmp_path,
        capture_output=True, text=True, timeout=COMMAND_LIMIT_S, check=False,
    )  # fmt: skip

    assert refused.returncode == 2
    assert "no recipe for kind shift: --kind is adapter, bitfit" in refused.stderr


def _words(command: str) -> list[str]:
    return [quoted or plain for quoted, plain in re.findall(r'"([^"]*)"|(\S+)', command)]


def _petstream(arguments: list[str], environment: dict[str, str], folder: Path) -> str:
    """Run a command; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "petstream", *arguments], env=environment, cwd=folder,
        capture_output=True, text=True, timeout=COMMAND_LIMIT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout
