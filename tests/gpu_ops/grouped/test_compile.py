"""Every instance of every kernel compiles for the cards that are supported. Needs no device."""

import re

import pytest

from gpu_ops.grouped.cuda_kernels import OPTIONS
from gpu_ops.grouped.kernel_file import KERNELS, KernelFile
from tests.gpu_ops.emulator.cuda_headers import cuda_include_folders
from tests.gpu_ops.grouped.kernel_files import kernel_files

nvrtc = pytest.importorskip("cuda.bindings.nvrtc", exc_type=ImportError)

CARDS = ("sm_80", "sm_90", "sm_100")
MAX_REGISTERS = 168
"""Of a thread: so that three blocks of 128 threads fit on a multiprocessor."""
ADDED_BY_CUPY = ("-ftz=true", "-default-device")
USED = re.compile(
    r"Compiling entry function '(?P<name>\w+)'.*?(?P<stores>\d+) bytes spill stores, "
    r"(?P<loads>\d+) bytes spill loads.*?Used (?P<registers>\d+) registers",
    re.DOTALL,
)


def compile_log(source: str, names: list[str], card: str) -> str:
    """Compile as CuPy does.

    Raises:
        AssertionError: With the compiler's words, if it refuses.
    """
    _, program = nvrtc.nvrtcCreateProgram(source.encode(), b"kernel.cu", 0, None, None)
    for name in names:
        nvrtc.nvrtcAddNameExpression(program, name.encode())
    includes = [f"-I{folder}" for folder in cuda_include_folders()]
    options = [
        *OPTIONS, *ADDED_BY_CUPY, *includes, f"-arch={card}", "--ptxas-options=-v"
    ]  # fmt: skip
    (status,) = nvrtc.nvrtcCompileProgram(
        program, len(options), [option.encode() for option in options]
    )
    _, size = nvrtc.nvrtcGetProgramLogSize(program)
    log = b" " * size
    nvrtc.nvrtcGetProgramLog(program, log)
    nvrtc.nvrtcDestroyProgram(program)
    text: str = log.decode(errors="replace")
    assert status == nvrtc.nvrtcResult.NVRTC_SUCCESS, text
    return text


@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize("file", kernel_files(), ids=lambda file: file.name)
def test_compiles_without_spilling(file: KernelFile, card: str) -> None:
    """Into registers alone, and few enough of them."""
    log = compile_log(file.path.read_text(), file.names(), card)

    used = [match.groupdict() for match in USED.finditer(log)]

    assert len(used) == len(file.names())
    for kernel in used:
        assert (kernel["stores"], kernel["loads"]) == ("0", "0"), kernel
        assert int(kernel["registers"]) <= MAX_REGISTERS, kernel


def test_a_spill_would_be_seen() -> None:
    """An array of more values than a thread may have registers."""
    source = """
    __global__ void __launch_bounds__(1024, 2) spilling(float* y, const float* x) {
        float values[48];
    #pragma unroll
        for (int i = 0; i < 48; i++) values[i] = x[i * 1024 + threadIdx.x];
        __syncthreads();
    #pragma unroll
        for (int i = 0; i < 48; i++) y[i * 1024 + threadIdx.x] = values[i] - 2 * values[47 - i];
    }
    """

    (used,) = USED.finditer(compile_log(source, ["spilling"], "sm_90"))

    assert int(used["stores"]) > 0


def test_kernels_need_no_header_that_a_worker_lacks() -> None:
    """Those of number types come with torch; others would only be found beside the tests."""
    sources = [path.read_text() for path in KERNELS.glob("*.cu*")]

    included = set(re.findall(r"#include <(.+)>", "".join(sources)))

    assert included == {"cuda_bf16.h", "cuda_fp16.h"}


def test_every_source_belongs_to_an_operator() -> None:
    """A kernel that nobody names would never be compiled here."""
    assert {path.stem for path in KERNELS.glob("*.cu")} == {file.name for file in kernel_files()}
