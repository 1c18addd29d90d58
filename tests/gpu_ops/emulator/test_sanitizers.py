"""The kernel tests once more, under AddressSanitizer and UndefinedBehaviorSanitizer."""

import pytest

from tests.gpu_ops.emulator.emulated_kernels import what_is_missing
from tests.gpu_ops.emulator.sanitized import ADDRESS, ROOT, run_sanitized

pytestmark = pytest.mark.skipif(what_is_missing() is not None, reason=str(what_is_missing()))

CHOSEN = "order7 and (7-136 or 33-520 or wide)"
"""One order of lanes and the two nastiest shapes: what a sanitizer finds, it finds in any order."""

COPY_AND_LOOK_BEHIND = """
import torch
from tests.gpu_ops.emulator.emulated_kernels import EmulatedKernel, compiled
source = '''
extern "C" __global__ void copy(float* y, const float* x) {
    y[threadIdx.x] = x[threadIdx.x];
    if (threadIdx.x == 31) *(volatile float*)y = ((const volatile float*)x)[32];
}
'''
x, y = torch.ones(32), torch.zeros(32)
kernel = EmulatedKernel(compiled("copy.cu", source, ("copy",)), 0, 0)
kernel((1, 1, 1), (32, 1, 1), [y.data_ptr(), x.data_ptr()])
"""
MISALIGNED = """
import torch
from tests.gpu_ops.emulator.emulated_kernels import EmulatedKernel, compiled
source = '''
extern "C" __global__ void load(float* y, const float* x) {
    if (threadIdx.x == 0) y[0] = reinterpret_cast<const float4*>(x)->y;
}
'''
x, y = torch.ones(32), torch.zeros(32)
kernel = EmulatedKernel(compiled("load.cu", source, ("load",)), 0, 0)
kernel((1, 1, 1), (32, 1, 1), [y.data_ptr(), x.data_ptr() + 4])
"""


@pytest.mark.slow
def test_kernels_read_and_write_only_what_is_theirs() -> None:
    """No report from either sanitizer, over all operators."""
    tests = str(ROOT / "tests" / "gpu_ops" / "grouped")

    done = run_sanitized(
        ADDRESS, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", CHOSEN, tests
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "report"),
    [
        (COPY_AND_LOOK_BEHIND, "heap-buffer-overflow"),
        (MISALIGNED, "misaligned address"),
    ],
)
def test_planted_bugs_are_reported(program: str, report: str) -> None:
    """Both pass unseen without the sanitizers."""
    done = run_sanitized(ADDRESS, "-c", program)

    assert done.returncode != 0
    assert report in done.stderr
