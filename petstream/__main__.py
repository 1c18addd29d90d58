"""The command line. Commands are imported when called, so that `petstream query` needs no torch."""

import importlib
import inspect
import os
import sys
from collections.abc import Sequence
from typing import NamedTuple

import typer


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
    "bench": _Command("bench", "Measure this machine, beside what else could do its work."),
}


def build_app(arguments: Sequence[str]) -> typer.Typer:
    """Make the command line for these arguments.

    Only the module of the command that is called is imported; every other command is present
    with its name and summary alone, for `--help` and for suggestions.
    """
    app = typer.Typer(
        name="petstream",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        help="Serve very many fine-tuned encoder tasks over Apache Kafka.",
    )

    @app.callback()
    def root(debug: bool = typer.Option(False, "--debug", help="Show tracebacks.")) -> None:
        if debug:
            os.environ["PETSTREAM_DEBUG"] = "1"

    called = next((argument for argument in arguments if argument in COMMANDS), None)
    for name, command in COMMANDS.items():
        if name == called:
            _add_command(app, name, command)
        else:
            app.command(name, help=command.summary)(_summary_only)
    return app


def _add_command(app: typer.Typer, name: str, command: _Command) -> None:
    """Add a module's commands: one function as a command, several as a group.

    A group with a callback is a command itself, and helps with what the callback says.
    """
    module_app: typer.Typer = importlib.import_module(f"petstream.commands.{command.module}").app
    functions = module_app.registered_commands
    own = module_app.registered_callback
    if own is not None:
        assert own.callback is not None
        app.add_typer(module_app, name=name, help=inspect.getdoc(own.callback))
    elif len(functions) == 1:
        assert functions[0].callback is not None
        app.command(name, help=functions[0].help)(functions[0].callback)
    else:
        app.add_typer(module_app, name=name, help=command.summary, no_args_is_help=True)


def _summary_only() -> None:
    """Stand for a command that is not called."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; errors are one line unless `--debug` or `PETSTREAM_DEBUG=1`.

    Args:
        arguments: By default those of this process.

    Raises:
        SystemExit: Always, with the exit code.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        build_app(arguments)(arguments)
    except Exception as error:
        if os.environ.get("PETSTREAM_DEBUG"):
            raise
        from petstream.settings import BadSettings  # by now it is imported, if it was raised

        if isinstance(error, BadSettings):
            _exit_with(str(error), 2)
        _exit_with(f"{type(error).__name__}: {error}", 1)


def _exit_with(message: str, code: int) -> None:
    sys.stderr.write(f"petstream: {message}\n")
    raise SystemExit(code)


if __name__ == "__main__":
    main()
