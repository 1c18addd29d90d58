"""What every command prints with: one console, one way to fail, one way to print JSON."""

import json
import math
import sys
from collections.abc import Mapping
from typing import Any, NoReturn

import typer
from rich.console import Console

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


def warn(message: str) -> None:
    """Say in one line, on standard error, what is odd but no error."""
    print(f"petstream: warning: {message}", file=sys.stderr)  # noqa: T201 - as in `fail`


def print_json(document: Any) -> None:  # noqa: ANN401 - whatever json can print
    """Print one JSON document on standard output."""
    sys.stdout.write(json_text(document) + "\n")


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
