"""The command line's conventions: help, exit codes, one-line errors, fast start."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.models import CommandInfo

from petstream.__main__ import COMMANDS, main
from petstream.settings import load_settings
from workers.backbone_catalogue import CATALOGUE


def run(
    *arguments: str, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PETSTREAM_") and name != "KAFKA_BOOTSTRAP_SERVERS"
    }
    return subprocess.run(
        [sys.executable, "-m", "petstream", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**clean, "COLUMNS": "200", **environment},
    )


class CommandLine:
    """Runs commands in this process: what only needs their words need not wait for an import."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run one to its end."""
        for name in os.environ:
            if name.startswith("PETSTREAM_") or name == "KAFKA_BOOTSTRAP_SERVERS":
                self._monkeypatch.delenv(name)
        for name, value in environment.items():
            self._monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert isinstance(ended.value.code, int)
        said = self._capsys.readouterr()
        return subprocess.CompletedProcess(arguments, ended.value.code, said.out, said.err)


@pytest.fixture
def petstream(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """The command line, without settings of the machine."""
    return CommandLine(monkeypatch, capsys)


def test_help_names_every_command() -> None:
    """`petstream --help` is the list of commands."""
    ended = run("--help")

    assert ended.returncode == 0
    assert all(name in ended.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_help_with_an_example(petstream: CommandLine, name: str) -> None:
    """Each command, each command of a group, and a group that is a command itself."""
    app = importlib.import_module(f"petstream.commands.{COMMANDS[name].module}").app
    functions = app.registered_commands
    is_group = app.registered_callback is not None or len(functions) > 1
    examples = [f"{name} {_name_of(function)}" for function in functions] if is_group else [name]
    if app.registered_callback is not None:
        examples.append(name)

    for example in examples:
        ended = petstream(*example.split(), "--help", COLUMNS="200")

        assert ended.returncode == 0, ended.stderr
        assert f"Example: petstream {example} " in " ".join(ended.stdout.split()) + " ", example


def _name_of(function: CommandInfo) -> str:
    assert function.callback is not None
    return function.name or function.callback.__name__.replace("_", "-")


def test_profile_without_a_word_measures(petstream: CommandLine, tmp_path: Path) -> None:
    """It is a command, and `show` another: here it finds nothing to measure."""
    ended = petstream(
        "profile", PETSTREAM_MODELS_DIR=str(tmp_path), PETSTREAM_STATE_DIR=str(tmp_path)
    )

    assert ended.returncode == 1
    assert "petstream models fetch" in ended.stderr


def test_models_fetch_without_a_name_gets_what_the_levels_run(petstream: CommandLine) -> None:
    """The two small backbones, which are here already; a large one only by its name."""
    ended = petstream("models", "fetch", "--json")

    assert ended.returncode == 0
    assert set(json.loads(ended.stdout)["folders"]) == {"minilm-l3", "minilm-l6"}
    assert "mpnet-base" in CATALOGUE


def test_wrong_use_is_exit_code_2() -> None:
    """An option that does not exist is wrong use, not a failure."""
    assert run("status", "--no-such-option").returncode == 2
    assert run("no-such-command").returncode == 2


def test_a_failure_is_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    """Nothing is up: exit 1, one line, no traceback."""
    ended = run("status", PETSTREAM_STATE_DIR=str(tmp_path))

    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert "petstream up" in ended.stderr


def test_a_missing_broker_is_said_before_anything_starts(tmp_path: Path) -> None:
    """A worker without a broker is wrong use."""
    ended = run("worker", "--level", "0", PETSTREAM_STATE_DIR=str(tmp_path))

    assert ended.returncode == 2
    assert "KAFKA_BOOTSTRAP_SERVERS" in ended.stderr


def test_a_bad_setting_is_named(tmp_path: Path) -> None:
    """A bad value in the environment or the file ends the command and names the setting."""
    (tmp_path / "petstream.toml").write_text('delivery = "sometimes"\n')

    from_file = run("status", cwd=tmp_path)
    from_environment = run("status", PETSTREAM_NAMESPACE="a b")

    assert from_file.returncode == from_environment.returncode == 2
    assert "delivery" in from_file.stderr
    assert "NAMESPACE" in from_environment.stderr.upper()


@pytest.mark.parametrize(
    ("arguments", "environment", "complaint"),
    [
        (("--namespace", "a b"), {}, "bad setting namespace"),
        (("--namespace", ""), {}, "bad setting namespace"),
        (("--bootstrap-servers", ""), {}, "bad setting bootstrap_servers"),
        ((), {"KAFKA_BOOTSTRAP_SERVERS": ""}, "bad setting bootstrap_servers"),
        ((), {"PETSTREAM_KAFKA": "{bad"}, "PETSTREAM_KAFKA is no JSON"),
        ((), {"PETSTREAM_KAFKA": '{"plugin.library.paths": "x"}'}, "client setting 'plugin"),
        ((), {"PETSTREAM_KAFKA": '{"sasl.password.file": "/nowhere"}'}, "cannot read /nowhere"),
        (
            (),
            {"PETSTREAM_KAFKA": '{"sasl.mechanism": "X", "security.protocol": "SASL_SSL"}'},
            "bad client setting: Failed to create admin client: Unsupported SASL mechanism: X;",
        ),
    ],
)
def test_bad_flags_and_client_settings_are_wrong_use(
    petstream: CommandLine,
    tmp_path: Path,
    arguments: tuple[str, ...],
    environment: dict[str, str],
    complaint: str,
) -> None:
    """One line that says what to correct, before the broker is asked for anything."""
    known = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "PETSTREAM_STATE_DIR": str(tmp_path)}

    ended = petstream("query", "-t", "task", "text", *arguments, **known | environment)

    assert ended.returncode == 2
    assert ended.stderr.startswith(f"petstream: {complaint}")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("[kafka", "petstream.toml is no TOML"),
        ("colour = 1", "bad setting colour"),
        ('[kafka]\n"plugin.library.paths" = "x"', "client setting 'plugin"),
    ],
)
def test_a_bad_file_is_wrong_use(
    petstream: CommandLine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: str,
    complaint: str,
) -> None:
    """Likewise."""
    (tmp_path / "petstream.toml").write_text(content)

    monkeypatch.chdir(tmp_path)

    ended = petstream("tasks", "list", KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")

    assert ended.returncode == 2
    assert ended.stderr.startswith(f"petstream: {complaint}")
    assert ended.stderr.count("\n") == 1


def test_client_settings_are_written_with_or_without_quotes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TOML takes the dots of a key without quotes for tables in tables."""
    monkeypatch.delenv("PETSTREAM_KAFKA", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "petstream.toml").write_text(
        '[kafka]\nsecurity.protocol = "SASL_SSL"\n"sasl.mechanism" = "SCRAM-SHA-512"\n'
        'ssl.ca.location = "/etc/ca.pem"\n'
    )

    assert load_settings().kafka == {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "ssl.ca.location": "/etc/ca.pem",
    }


def test_a_misspelt_variable_is_told(petstream: CommandLine, tmp_path: Path) -> None:
    """In one line; the command goes on."""
    ended = petstream("models", "list", PETSTREAM_MODEL_DIR="x", PETSTREAM_MODELS_DIR=str(tmp_path))

    assert ended.returncode == 0
    assert ended.stderr.startswith("petstream: warning: PETSTREAM_MODEL_DIR is no setting")
    assert ended.stderr.count("\n") == 1


def test_a_level_without_a_backbone_is_told(petstream: CommandLine) -> None:
    """A worker of it would end with a KeyError."""
    ended = petstream("worker", "--level", "2", KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")

    assert ended.returncode == 2
    assert "--backbone" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_environment_goes_over_the_file(tmp_path: Path) -> None:
    """Flags over environment over `petstream.toml`."""
    (tmp_path / "petstream.toml").write_text('state_dir = "/nowhere"\nnamespace = "from-file"\n')

    probe = (
        "from petstream.settings import load_settings as load\n"
        "settings = load()\n"
        "print(settings.namespace, settings.delivery)\n"
        "print(settings.with_flags(namespace='from-flag', delivery=None).namespace)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", probe],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PETSTREAM_DELIVERY": "at_least_once"},
    )

    assert ended.stdout.splitlines() == ["from-file at_least_once", "from-flag"]


def test_figures_are_in_the_state_folder_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Services of one deployment, and those of another that is told the same, share them."""
    monkeypatch.setenv("PETSTREAM_STATE_DIR", str(tmp_path))
    monkeypatch.delenv("PETSTREAM_FIGURES_FILE")
    own = load_settings()
    monkeypatch.setenv("PETSTREAM_FIGURES_FILE", str(tmp_path / "shared.json"))
    shared = load_settings()

    assert own.figures_file == tmp_path / "machine-figures.json"
    assert shared.figures_file == tmp_path / "shared.json"
    assert own.environment()["PETSTREAM_FIGURES_FILE"] == str(own.figures_file)
