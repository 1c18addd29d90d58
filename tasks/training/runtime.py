"""Process-wide settings that make training on a CPU fast; call before the first step.

On an AMD Zen 5 core without AMX, a step of LoRA on MiniLM-L3 takes 225 ms in fp32 (MKL) and 70 ms
in bf16 (oneDNN with AVX512-BF16).
"""

import ctypes
import os
import sys

import threadpoolctl  # type: ignore[import-untyped]
import torch

_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_THRESHOLD = -3


def prepare_process(num_threads: int | None = None) -> None:
    """Keep freed memory in the process and oneDNN's kernels in a larger cache.

    glibc gives every large temporary back to the kernel, and the page faults on the next one
    cost up to a fifth of a step.

    Args:
        num_threads: For torch and BLAS; None leaves their default, one per core.
    """
    # Read by oneDNN when it builds its first kernel.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16384")
    if sys.platform == "linux":
        try:
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
            libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
            libc.mallopt(_M_TOP_PAD, 64 << 20)
        except (OSError, AttributeError):  # musl has neither the name nor the cost
            pass
    if num_threads is not None:
        torch.set_num_threads(num_threads)
        # The linear probe's BLAS has threads of its own, which spin while they wait.
        threadpoolctl.threadpool_limits(limits=num_threads)


def has_fast_bf16() -> bool:
    """Tell whether the CPU multiplies bf16 matrices in hardware."""
    return bool(torch.cpu._is_avx512_bf16_supported())
