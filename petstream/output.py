"""What every command prints with: one console, one way to fail, one way to print JSON."""

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

console = Console()
"""Tables and progress for people, on standard output."""

error_console = Console(stderr=True)
"""Errors and progress beside machine-readable output."""


def fail(message: str, *, code: int = 1) -> NoReturn:
    """End the command with a one-line error that says what to do.

    Args:
        message: What is wrong and what to do.
        code: 1 for a failure, 2 for wrong use.
    """
    print(f"petstream: {message}", file=sys.stderr)  # noqa: T201 - plain, unwrapped, for scripts
    raise typer.Exit(code)


@contextmanager
def counting_bar(
    what: str, total: int | None, *, on: Console = error_console
) -> Iterator[Callable[[], None]]:
    """Show how many there are so far, on a terminal; nothing elsewhere.

    Args:
        what: What is counted.
        total: How many there will be; None where nobody knows.
        on: The console.

    Yields:
        To be called for each, on any thread.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=on, disable=not on.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)


def warn(message: str) -> None:
    """Say in one line, on standard error, what is odd but no error."""
    print(f"petstream: warning: {message}", file=sys.stderr)  # noqa: T201 - as in `fail`


def print_json(document: Any) -> None:  # noqa: ANN401 - whatever json can print
    """Print one JSON document on standard output, at once: its reader may be a pipe that waits."""
    sys.stdout.write(json_text(document) + "\n")
    sys.stdout.flush()


def json_text(document: Any) -> str:  # noqa: ANN401 - whatever json can print
    """Return a document as JSON, which knows no infinity: what is not finite is null."""
    return json.dumps(_finite(document), indent=2, ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:  # noqa: ANN401 - any part of a JSON document
    if isinstance(value, Mapping):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
