"""Runs Python with a sanitizer's runtime loaded first, as it must be, on kernels built for it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tests.gpu_ops.emulator.emulated_kernels import SANITIZER_CHOICE, what_is_missing

ROOT = Path(__file__).parents[3]
RACE_EXIT_CODE = 66
"""Of a process that ThreadSanitizer stopped."""


class Sanitizer(NamedTuple):
    """One way to watch kernels."""

    name: str
    """As `emulated_kernels.SANITIZERS` has it."""
    runtimes: tuple[str, ...]
    environment: Mapping[str, str]
    launcher: tuple[str, ...] = ()
    """What starts the process."""


ADDRESS = Sanitizer("address", ("libasan.so", "libubsan.so"), {"ASAN_OPTIONS": "detect_leaks=0"})
THREAD = Sanitizer(
    "thread",
    ("libtsan.so",),
    {
        # What libraries do is theirs; the place of an access is kept as long as can be.
        "TSAN_OPTIONS": f"halt_on_error=1 exitcode={RACE_EXIT_CODE} history_size=7 "
        "detect_deadlocks=0 report_signal_unsafe=0 ignore_noninstrumented_modules=1",
        "OMP_NUM_THREADS": "1",
    },
    ("setarch", "-R"),  # its shadow memory has fixed places
)


def what_is_missing_for(sanitizer: Sanitizer) -> str | None:
    """Return why nothing can be run under it here, or None."""
    if missing := what_is_missing():
        return missing
    for name in sanitizer.runtimes:
        if not _path_of(name).is_file():
            return f"g++ has no {name}"
    launcher = sanitizer.launcher
    if launcher and shutil.which(launcher[0]) is None:
        return f"no {launcher[0]}"
    if launcher and subprocess.run([*launcher, "true"], capture_output=True).returncode:
        return f"{' '.join(launcher)} is not allowed here"
    return None


def _path_of(runtime: str) -> Path:
    """Return where it is; g++ returns the bare name of one that it does not have."""
    asked = ["g++", f"-print-file-name={runtime}"]
    return Path(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip())


def run_sanitized(sanitizer: Sanitizer, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python under a sanitizer to its end, or to the first report."""
    environment = os.environ | {
        "LD_PRELOAD": " ".join(str(_path_of(name)) for name in sanitizer.runtimes),
        SANITIZER_CHOICE: sanitizer.name,
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        **sanitizer.environment,
    }
    return subprocess.run(
        [*sanitizer.launcher, sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
