"""The one JSON document that every benchmark prints with `--json`."""

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from workers.processor import this_processor

PACKAGES = (
    "confluent-kafka",
    "msgpack",
    "numpy",
    "pydantic",
    "tokenizers",
    "torch",
    "transformers",
)


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure that was promised, and what was measured."""

    id: str
    target: float
    value: float
    unit: str
    direction: Literal["at least", "at most"] = "at least"

    @property
    def met(self) -> bool:
        """Whether the promise is kept."""
        if self.direction == "at least":
            return self.value >= self.target
        return self.value <= self.target


def make_document(rows: Sequence[dict[str, Any]], goals: Sequence[Goal]) -> dict[str, Any]:
    """Return the document of this run: what was run, where, on what, and what came out."""
    return {
        "command": _command(),
        "commit": commit(),
        "device": device(),
        "versions": versions(),
        "load_average": os.getloadavg()[0],
        "rows": list(rows),
        "goals": [{**asdict(goal), "met": goal.met} for goal in goals],
    }


def device() -> str:
    """Return the processor's name and how many cores this process may use."""
    name = this_processor().name
    return f"{name}, {len(os.sched_getaffinity(0))} cores"


def commit() -> str:
    """Return the checkout's commit, with `-dirty` where files were changed."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return described.stdout.strip() or "unknown"


def versions() -> dict[str, str]:
    """Return Python's version and those of the packages that a benchmark's figures depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _command() -> str:
    """Return what was called: a script by its path, an installed command by its name."""
    program, *arguments = sys.argv
    path = Path(program)
    if path.name == "__main__.py":  # python -m PACKAGE
        return " ".join([path.parent.name, *arguments])
    return " ".join([*(("python", program) if path.suffix == ".py" else (path.name,)), *arguments])
