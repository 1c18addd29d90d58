"""What this process has in memory, as the kernel counts it."""

import ctypes
import gc
import sys

import psutil


def resident_bytes() -> int:
    """Return the process's proportional set size, where there is one, else its resident set size.

    What the interpreter and glibc keep of freed memory is given back first. `tune_process` lets
    glibc keep nearly all of it, so that otherwise freed temporaries would count as used, and what
    is then put where they were would not.
    """
    gc.collect()
    if sys.platform.startswith("linux"):
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # only glibc has it
        if trim is not None:
            trim(0)
    memory = psutil.Process().memory_full_info()
    pss: int | None = getattr(memory, "pss", None)
    return memory.rss if pss is None else pss
