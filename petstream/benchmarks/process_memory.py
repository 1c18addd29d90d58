"""What this process has in memory of its own, as the kernel counts it."""

import ctypes
import gc
import sys
from pathlib import Path

import psutil

_SMAPS = Path("/proc/self/smaps_rollup")


def own_bytes() -> int:
    """Return the process's anonymous memory, where the kernel tells it, else its resident set size.

    Not the proportional set size: that has the process's share of libraries too, some hundred
    megabytes, which changes when other processes that use them come and go.

    What the interpreter and glibc keep of freed memory is given back first. `tune_process` lets
    glibc keep nearly all of it, so that otherwise freed temporaries would count as used, and what
    is then put where they were would not.
    """
    gc.collect()
    if sys.platform.startswith("linux"):
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # only glibc has it
        if trim is not None:
            trim(0)
    if _SMAPS.is_file():
        for line in _SMAPS.read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "Anonymous":
                return 1024 * int(value.split()[0])
    rss: int = psutil.Process().memory_info().rss
    return rss
