"""Settings of the C libraries below torch that the speed of training and of serving depends on.

Both hold for the whole process, and neither changes a result.
"""

import ctypes
import os
import sys

_PRIMITIVE_CACHE_ENTRIES = "16384"
# malloc.h: parameters of mallopt.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3


def tune_process() -> None:
    """Set up oneDNN's cache and glibc's allocator; call before the first product.

    oneDNN builds a kernel for each row count it meets, some milliseconds each, and keeps 1,024;
    a packed engine meets more, and then builds kernels all the time. glibc gives every large
    temporary back to the kernel when it is freed, so that each activation costs page faults: up
    to a fifth of a training step. What the environment already says of the cache is kept.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", _PRIMITIVE_CACHE_ENTRIES)
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another libc than glibc (musl) has no such knob
        return
    mallopt(_M_MMAP_THRESHOLD, 1 << 30)
    mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
    mallopt(_M_TOP_PAD, 64 << 20)
