"""Where a test run keeps what its engines measure: one measures, the next ones choose alike."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

VARIABLE = "PETSTREAM_FIGURES_FILE"
"""Read by services, too, whatever their state folder is."""


@contextmanager
def figures_kept() -> Iterator[None]:
    """Have this process, and those that it starts, keep figures until the end of the block."""
    if VARIABLE in os.environ:  # of the process that started this one, or a wish of the developer
        yield
        return
    with tempfile.TemporaryDirectory(prefix="petstream-tests-") as folder:
        os.environ[VARIABLE] = str(Path(folder) / "machine-figures.json")
        try:
            yield
        finally:
            del os.environ[VARIABLE]


def kept_figures() -> Path:
    """Return the file, for an engine of a test."""
    return Path(os.environ[VARIABLE])
