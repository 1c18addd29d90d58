"""The command line. Commands are imported when called, so that `petstream query` needs no torch."""

import importlib
import os
import sys
from typing import NamedTuple

import click
import typer
from pydantic import ValidationError
from typer.core import TyperGroup


class _Command(NamedTuple):
    module: str
    summary: str


COMMANDS = {
    "demo": _Command("demo", "The main job on real data: queries in, answers out, a table."),
    "up": _Command("up", "Run the services on the embedded broker or on yours."),
    "down": _Command("down", "Stop what `up --detach` started."),
    "status": _Command("status", "Show the running services."),
    "broker": _Command("broker", "The embedded real Kafka: start, stop, status."),
    "topics": _Command("topics", "Create and verify the topics."),
    "models": _Command("models", "Fetch and list backbones."),
    "tasks": _Command("tasks", "Add, list, show, alias and retire tasks, while serving."),
    "scheduler": _Command("scheduler", "Run one scheduler process."),
    "worker": _Command("worker", "Run one worker process of a level."),
    "query": _Command("query", "Ask one question and print its answer."),
    "produce": _Command("produce", "Publish a file of queries."),
    "results": _Command("results", "Follow the answers."),
    "train": _Command("train", "Train a PET on a frozen backbone from labelled rows."),
    "calibrate": _Command("calibrate", "Fit temperatures and the cascade's threshold."),
    "profile": _Command("profile", "Measure the cost models of this machine."),
}


class _LazyGroup(TyperGroup):
    """Knows every command's name and summary; imports a command's module only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        command = COMMANDS.get(cmd_name)
        if command is None:
            return None
        if not _is_invoked(cmd_name):
            return click.Command(cmd_name, help=command.summary, short_help=command.summary)
        module = importlib.import_module(f"petstream.commands.{command.module}")
        return typer.main.get_command(module.app)


def _is_invoked(name: str) -> bool:
    """Tell whether this process runs the command, rather than listing it in --help."""
    return name in sys.argv[1:]


app = typer.Typer(
    cls=_LazyGroup,
    name="petstream",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Serve very many fine-tuned encoder tasks over Apache Kafka.",
)


@app.callback()
def _root(
    debug: bool = typer.Option(False, "--debug", help="Show tracebacks."),
) -> None:
    if debug:
        os.environ["PETSTREAM_DEBUG"] = "1"


def main() -> None:
    """Run the command line; errors are one line unless `--debug` or `PETSTREAM_DEBUG=1`."""
    try:
        app()
    except ValidationError as error:
        if os.environ.get("PETSTREAM_DEBUG"):
            raise
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        _exit_with(f"bad setting {where}: {first['msg']}", 2)
    except Exception as error:  # noqa: BLE001 - the top of the program: one line, no traceback
        if os.environ.get("PETSTREAM_DEBUG"):
            raise
        _exit_with(f"{type(error).__name__}: {error}", 1)


def _exit_with(message: str, code: int) -> None:
    sys.stderr.write(f"petstream: {message}\n")
    raise SystemExit(code)


if __name__ == "__main__":
    main()
