"""Figures measured on this machine, kept in a file so that the next start need not measure again.

They hold for one processor and one version of the libraries: a file of another is not used. Several
processes may share a file: one measures at a time, undisturbed by the others, which wait for it and
take its figures.
"""

import fcntl
import json
import logging
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workers.processor import this_processor

logger = logging.getLogger(__name__)

FILE_NAME = "machine-figures.json"
LINEAR = "linear"
"""Figures of the shared products are named `linear <out>x<in> <dtype>`, with back ends as keys."""

Microseconds = Annotated[float, Field(allow_inf_nan=False)]

_LONGEST_WAIT_S = 60.0
"""For another process that measures: some seconds, more on a slow processor in bfloat16."""


class FiguresFile(BaseModel):
    """What the file holds."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    machine: dict[str, str]
    """Processor and versions that the figures hold for."""
    figures: dict[str, dict[str, Microseconds]]
    """By what was measured: name -> microseconds."""


class MachineFigures:
    """Measures each figure once. For one thread; other processes may use the file.

    From the first figure that it has to measure until `save`, others that have to measure wait.

    Args:
        path: The file. None: figures are measured and forgotten.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._machine = this_machine()
        self._figures = _read(path, self._machine)
        self._is_changed = False
        self._has_waited = False
        """For others; for whom it was too long, it is not again for the next figure."""
        self._lock: TextIOWrapper | None = None

    def measured(
        self, name: str, measure: Callable[[], Mapping[str, float]]
    ) -> Mapping[str, float]:
        """Return the figures of that name, measuring them if they were not yet.

        Args:
            name: Says what is measured, and all that the figures depend on besides the machine.
            measure: Returns microseconds by name.
        """
        if name not in self._figures and self._path is not None and not self._has_waited:
            self._has_waited = True
            self._lock = _locked(self._path)
            self._figures |= _read(self._path, self._machine)
        if name not in self._figures:
            self._figures[name] = {key: round(us, 3) for key, us in measure().items()}
            self._is_changed = True
        return self._figures[name]

    def save(self) -> None:
        """Write what was measured since the start; where that fails, it is said in the log."""
        if self._path is not None and self._is_changed:
            merged = _read(self._path, self._machine) | self._figures
            try:
                _write(self._path, FiguresFile(machine=self._machine, figures=merged))
            except OSError as error:
                logger.warning("figures of this machine are not kept: %s", error)
        self._is_changed = False
        self._has_waited = False
        if self._lock is not None:
            self._lock.close()
            self._lock = None


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


def _locked(path: Path) -> TextIOWrapper | None:
    """Lock the file of figures until what this returns is closed; None where that cannot be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.with_suffix(".lock").open("w")
    except OSError:
        return None  # nor can the file be written, which is told then
    give_up_s = time.monotonic() + _LONGEST_WAIT_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            if time.monotonic() > give_up_s:
                logger.warning("another process measures this machine for too long: %s", path)
                file.close()
                return None
            time.sleep(0.05)
        except OSError:  # a file system without locks
            return file


def _read(path: Path | None, machine: Mapping[str, str]) -> dict[str, dict[str, float]]:
    found = None if path is None else read_figures(path)
    return {} if found is None or found.machine != machine else dict(found.figures)


def _write(path: Path, contents: FiguresFile) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(contents.model_dump(), indent=1, sort_keys=True) + "\n")
    partial.replace(path)
