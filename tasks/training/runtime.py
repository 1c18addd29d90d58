"""Process-wide settings that make training on a CPU fast; call before the first step.

On an AMD Zen 5 core without AMX, a step of LoRA on MiniLM-L3 takes 225 ms in fp32 (MKL) and 70 ms
in bf16 (oneDNN with AVX512-BF16).
"""

import threadpoolctl  # type: ignore[import-untyped]
import torch

from tasks.process_tuning import tune_process


def prepare_process(num_threads: int | None = None) -> None:
    """Tune the process, and its threads.

    Args:
        num_threads: For torch and BLAS; None leaves their default, one per core.
    """
    tune_process()
    if num_threads is not None:
        torch.set_num_threads(num_threads)
        # The linear probe's BLAS has threads of its own, which spin while they wait.
        threadpoolctl.threadpool_limits(limits=num_threads)


def has_fast_bf16() -> bool:
    """Tell whether the CPU multiplies bf16 matrices in hardware."""
    return bool(torch.cpu._is_avx512_bf16_supported())
