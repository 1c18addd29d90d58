"""The command line's conventions: help, exit codes, one-line errors, fast start."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from petstream.__main__ import COMMANDS


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


def test_help_names_every_command() -> None:
    """`petstream --help` is the list of commands."""
    ended = run("--help")

    assert ended.returncode == 0
    assert all(name in ended.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_help_with_an_example(name: str) -> None:
    """Each command, or a command of its group, says how it is used."""
    ended = run(name, "--help")
    text = ended.stdout
    if "Commands" in text and "Example" not in text:
        module = __import__(f"petstream.commands.{COMMANDS[name].module}", fromlist=["app"])
        for command in module.app.registered_commands:
            own_name = command.name or command.callback.__name__.replace("_", "-")
            text = run(name, own_name, "--help").stdout
            assert "Example: petstream" in text, own_name

    assert ended.returncode == 0, ended.stderr
    assert "Example: petstream" in text


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


def test_a_missing_broker_is_said_before_anything_starts() -> None:
    """A worker without a broker is wrong use."""
    ended = run("worker", "--level", "0")

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
