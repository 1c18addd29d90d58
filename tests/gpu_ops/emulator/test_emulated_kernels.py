"""The harness itself: each planted bug must show, or it proves nothing about the kernels."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from gpu_ops.grouped.kernel_file import Argument
from tests.gpu_ops.emulator.emulated_kernels import (
    MAX_SHARED_BYTES,
    UNASKED_SHARED_BYTES,
    KernelError,
    compiled,
    what_is_missing,
)
from tests.gpu_ops.emulator.proof_kernels import (
    ADD_ROWS,
    MATRIX,
    SHIFT,
    TWO_TILES,
    is_right,
    kernel,
    run,
    without,
)

pytestmark = pytest.mark.skipif(what_is_missing() is not None, reason=str(what_is_missing()))

ORDERS = (0, 1, 7)

WARP_SUM = """
extern "C" __global__ void warp_sum(float* y, const float* x, int n) {
    float value = threadIdx.x < n ? x[threadIdx.x] : 0.0f;
    for (int flip = 16; flip > 0; flip /= 2) value += __shfl_xor_sync(0xffffffffu, value, flip);
    y[threadIdx.x] = value;
}
"""
DYNAMIC = """
extern "C" __global__ void dynamic(float* y, float scale) {
    extern __shared__ float tile[];
    tile[threadIdx.x] = threadIdx.x;
    __syncthreads();
    y[threadIdx.x] = scale * tile[31 - threadIdx.x];
}
"""


@pytest.mark.parametrize("order", ORDERS)
def test_correct_kernels_give_the_right_numbers(order: int) -> None:
    """In any order of blocks, warps and lanes."""
    assert all(is_right(source, order) for source in (SHIFT, TWO_TILES, MATRIX, ADD_ROWS))


@pytest.mark.parametrize(
    "planted",
    [
        pytest.param(without("__syncthreads();", SHIFT), id="barrier after filling"),
        pytest.param(
            without("__syncthreads();  // again", TWO_TILES), id="barrier before overwriting"
        ),
        pytest.param(without("__syncwarp();  // stored", MATRIX), id="warp barrier after storing"),
        pytest.param(SHIFT.replace("% 64", ""), id="reads past the tile"),
        pytest.param(
            TWO_TILES.replace("tile[threadIdx.x] =", "if (threadIdx.x) tile[threadIdx.x] ="),
            id="a part of the tile never written",
        ),
    ],
)
def test_planted_bugs_give_wrong_numbers(planted: str) -> None:
    """In at least one of the orders that every kernel test runs in."""
    assert not all(is_right(planted, order) for order in ORDERS)


def planted_error(source: str, args: Sequence[Argument], order: int = 0) -> str:
    with pytest.raises(KernelError) as caught:
        run(source, args, order)
    return str(caught.value)


@pytest.mark.parametrize("order", ORDERS)
def test_a_shuffle_that_not_all_lanes_reach_is_an_error(order: int) -> None:
    """On a device it is undefined."""
    planted = WARP_SUM.replace("float value =", "if (threadIdx.x >= n) return;\n float value =")
    x, y = torch.ones(32), torch.zeros(32)

    run(WARP_SUM, [y.data_ptr(), x.data_ptr(), np.int32(20)], order)
    message = planted_error(planted, [y.data_ptr(), x.data_ptr(), np.int32(20)], order)

    assert y.eq(20).all()
    assert "has exited" in message


def test_lanes_that_wait_at_different_barriers_are_a_deadlock() -> None:
    """A barrier in a divergent branch."""
    planted = SHIFT.replace(
        "__syncthreads();", "if (threadIdx.x < 7) __syncthreads();\n else __syncthreads();"
    )
    x, y = torch.ones(64), torch.zeros(64)

    message = planted_error(planted, [y.data_ptr(), x.data_ptr()])

    assert "deadlock" in message


def test_a_matrix_at_an_odd_place_is_an_error() -> None:
    """Its rows are loaded from multiples of 16 bytes."""
    a, y = torch.zeros(256, dtype=torch.float16), torch.zeros(16, 16)
    planted = MATRIX.replace("(eighth + odd) * 16", "(eighth + odd) * 15")

    message = planted_error(planted, [y.data_ptr(), a.data_ptr(), a.data_ptr()])

    assert "multiple of 16 bytes" in message


@pytest.mark.parametrize(
    ("scale", "message"),
    [(2.0, "is float, got float 2.0"), (2, "is float, got int 2"), (np.int32(2), "got int32 2")],
)
def test_a_scalar_of_another_type_is_an_error(scale: Argument, message: str) -> None:
    """CuPy passes a Python float as a double, and the kernel reads half of it."""
    y = torch.zeros(32)

    assert message in planted_error(DYNAMIC, [y.data_ptr(), scale])


def test_a_missing_argument_is_an_error() -> None:
    """On a device the kernel reads what lies behind the others."""
    assert "expected 2 arguments, got 1" in planted_error(DYNAMIC, [torch.zeros(32).data_ptr()])


@pytest.mark.parametrize(
    ("grid", "block", "shared_bytes", "message"),
    [
        ((0, 1, 1), (32, 1, 1), 128, "no blocks"),
        ((1, 1, 1), (1025, 1, 1), 128, "1024 threads"),
        ((1, 1, 1), (32, 1, 1), UNASKED_SHARED_BYTES + 1, "not asked for"),
    ],
)
def test_a_launch_that_a_device_refuses_is_an_error(
    grid: tuple[int, int, int], block: tuple[int, int, int], shared_bytes: int, message: str
) -> None:
    """And so is an empty grid, of which CuPy makes one block."""
    y = torch.zeros(32)

    with pytest.raises(KernelError, match=message):
        kernel(DYNAMIC)(grid, block, [y.data_ptr(), np.float32(2)], shared_mem=shared_bytes)


def test_dynamic_shared_memory_works_and_more_can_be_asked_for() -> None:
    """As on a device."""
    y = torch.zeros(32)
    dynamic = kernel(DYNAMIC)
    args: list[Argument] = [y.data_ptr(), np.float32(2)]
    dynamic.max_dynamic_shared_size_bytes = MAX_SHARED_BYTES

    dynamic((1, 1, 1), (32, 1, 1), args, shared_mem=MAX_SHARED_BYTES)

    assert y.equal(torch.arange(62.0, -2.0, -2.0))
    dynamic.max_dynamic_shared_size_bytes = MAX_SHARED_BYTES + 1
    with pytest.raises(KernelError, match="no device has"):
        dynamic((1, 1, 1), (32, 1, 1), args, shared_mem=MAX_SHARED_BYTES + 1)


def test_a_source_that_does_not_compile_says_where() -> None:
    """With the file's own name and line."""
    with pytest.raises(KernelError, match=r"broken\.cu:2"):
        compiled("broken.cu", "__global__ void f() {\n  nonsense;\n}", ("f",))
