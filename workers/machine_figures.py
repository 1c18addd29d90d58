"""Figures measured on this machine, kept in a file so that the next start need not measure again.

They hold for one processor and one version of the libraries: a file of another is not used. Several
processes may share a file; what one of them measured meanwhile is kept.
"""

import fcntl
import json
import logging
import os
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workers.processor import this_processor

logger = logging.getLogger(__name__)

FILE_NAME = "machine-figures.json"
LINEAR = "linear"
"""Figures of the shared products are named `linear <out>x<in> <dtype>`, with back ends as keys."""

Microseconds = Annotated[float, Field(allow_inf_nan=False)]


class FiguresFile(BaseModel):
    """What the file holds."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    machine: dict[str, str]
    """Processor and versions that the figures hold for."""
    figures: dict[str, dict[str, Microseconds]]
    """By what was measured: name -> microseconds."""


class MachineFigures:
    """Measures each figure once. For one thread; other processes may use the file.

    Args:
        path: The file. None: figures are measured and forgotten.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._machine = this_machine()
        self._figures = _read(path, self._machine)
        self._is_changed = False

    def measured(
        self, name: str, measure: Callable[[], Mapping[str, float]]
    ) -> Mapping[str, float]:
        """Return the figures of that name, measuring them if they were not yet.

        Args:
            name: Says what is measured, and all that the figures depend on besides the machine.
            measure: Returns microseconds by name.
        """
        if name not in self._figures:
            self._figures[name] = {key: round(us, 3) for key, us in measure().items()}
            self._is_changed = True
        return self._figures[name]

    def save(self) -> None:
        """Write what was measured since the start; where that fails, it is said in the log."""
        if self._path is None or not self._is_changed:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                merged = _read(self._path, self._machine) | self._figures
                _write(self._path, FiguresFile(machine=self._machine, figures=merged))
            finally:
                os.close(descriptor)
        except OSError as error:
            logger.warning("figures of this machine are not kept: %s", error)
        self._is_changed = False


def this_machine() -> dict[str, str]:
    """Return what figures depend on."""
    return {
        "processor": this_processor().name,
        "petstream": version("petstream"),
        "torch": version("torch"),
    }


def read_figures(path: Path) -> FiguresFile | None:
    """Return what is in the file, of whichever machine; None where there is none to read."""
    try:
        return FiguresFile.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def _read(path: Path | None, machine: Mapping[str, str]) -> dict[str, dict[str, float]]:
    found = None if path is None else read_figures(path)
    return {} if found is None or found.machine != machine else dict(found.figures)


def _write(path: Path, contents: FiguresFile) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(contents.model_dump(), indent=1, sort_keys=True) + "\n")
    partial.replace(path)
