"""Small correct kernels, and what they must return: each bug planted into one must show."""

import re
from collections.abc import Callable, Sequence

import torch

from gpu_ops.grouped.kernel_file import Argument
from tests.gpu_ops.emulator.emulated_kernels import EmulatedKernel, compiled

SHIFT = """
extern "C" __global__ void shift(float* y, const float* x) {
    __shared__ float tile[64];
    tile[threadIdx.x] = x[blockIdx.x * 64 + threadIdx.x];
    __syncthreads();
    y[blockIdx.x * 64 + threadIdx.x] = tile[(threadIdx.x + 1) % 64];
}
"""
TWO_TILES = """
extern "C" __global__ void two_tiles(float* y, const float* x) {
    __shared__ float tile[64];
    float sum = 0.0f;
    for (int begin = 0; begin < 128; begin += 64) {
        tile[threadIdx.x] = x[begin + threadIdx.x];
        __syncthreads();
        for (int i = 0; i < 64; i++) sum += tile[i] * (i + 1);
        __syncthreads();  // again
    }
    y[threadIdx.x] = sum;
}
"""
MATRIX = """
#include "tensor_core.cuh"
extern "C" __global__ void matrix(float* y, const __half* a, const __half* b) {
    __shared__ __align__(16) unsigned char tiles[2][512];
    __half* left = reinterpret_cast<__half*>(tiles[0]);
    __half* right = reinterpret_cast<__half*>(tiles[1]);
    __shared__ float out[16 * 20];
    const int lane = threadIdx.x, eighth = lane % 8, odd = lane / 8 % 2 * 8, second = lane / 16 * 8;
    for (int i = lane; i < 256; i += 32) left[i] = a[i], right[i] = b[i];
    __syncwarp();  // filled
    unsigned rows[4], columns[4];
    load_matrices(rows, left + (eighth + odd) * 16 + second);
    load_matrices(columns, right + (eighth + second) * 16 + odd);
    for (int half = 0; half < 2; half++) {
        float sums[4] = {};
        multiply_add<__half>(sums, rows, columns[2 * half], columns[2 * half + 1]);
        float* place = out + lane / 4 * 20 + half * 8 + lane % 4 * 2;
        for (int i = 0; i < 4; i++) place[i / 2 * 160 + i % 2] = sums[i];
    }
    __syncwarp();  // stored
    for (int i = lane; i < 256; i += 32) y[i] = out[i / 16 * 20 + i % 16];
}
"""
ADD_ROWS = """
extern "C" __global__ void add_rows(float* y, const float* x) {
    for (int row = 0; row < 4; row++) {  // of a tile of 4, of which 3 are the block's
        const int place = (blockIdx.x * 3 + row) * 64 + threadIdx.x;
        const float added = row < 3 ? x[place] : 0.0f;
        if (row < 3) y[place] += added;
    }
}
"""
Result = tuple[torch.Tensor, torch.Tensor]
"""What a kernel left behind, and what it should have."""


def without(part: str, source: str) -> str:
    """Return the source with the first such part taken out."""
    assert part in source
    return source.replace(part, "", 1)


def name_of(source: str) -> str:
    """Return what the kernel is called."""
    found = re.search(r"void (\w+)\(", source)
    assert found
    return found[1]


def kernel(source: str, order: int = 0) -> EmulatedKernel:
    """Compile a source with one kernel."""
    name = name_of(source)
    return EmulatedKernel(compiled(f"{name}.cu", source, (name,)), 0, order)


def run(source: str, args: Sequence[Argument], order: int = 0, blocks: int = 1) -> None:
    """Launch it, with a thread to a column of its tile."""
    threads = 64 if "64" in source else 32
    kernel(source, order)((blocks, 1, 1), (threads, 1, 1), args, shared_mem=128)


def _shift(source: str, order: int) -> Result:
    x, y = torch.arange(192.0), torch.zeros(192)
    run(source, [y.data_ptr(), x.data_ptr()], order, blocks=3)
    return y, x.view(3, 64).roll(-1, dims=1).reshape(-1)


def _two_tiles(source: str, order: int) -> Result:
    x, y = torch.randn(128, generator=torch.Generator().manual_seed(1)), torch.zeros(64)
    run(source, [y.data_ptr(), x.data_ptr()], order)
    weights = torch.arange(1.0, 65.0).repeat(2)
    return y, (x * weights).sum().expand(64)


def _matrix(source: str, order: int) -> Result:
    generator = torch.Generator().manual_seed(2)
    a, b = (torch.randn(16, 16, generator=generator).half() for _ in range(2))
    y = torch.zeros(16, 16)
    run(source, [y.data_ptr(), a.data_ptr(), b.data_ptr()], order)
    return y, a.float() @ b.float().t()


def _add_rows(source: str, order: int) -> Result:
    x, y = torch.arange(576.0), torch.zeros(640)
    for _ in range(2):  # the second launch reads what the first one wrote
        run(source, [y.data_ptr(), x.data_ptr()], order, blocks=3)
    return y, torch.cat([2 * x, torch.zeros(64)])


_RUNS: dict[str, Callable[[str, int], Result]] = {
    "shift": _shift,
    "two_tiles": _two_tiles,
    "matrix": _matrix,
    "add_rows": _add_rows,
}


def is_right(source: str, order: int) -> bool:
    """Run a correct or a planted kernel and look at its numbers."""
    return torch.allclose(*_RUNS[name_of(source)](source, order), rtol=1e-4, atol=1e-4)
