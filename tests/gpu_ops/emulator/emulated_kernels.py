"""Kernels compiled by the host's C++ compiler and run by `cuda_on_cpu.h`.

Use it where `CudaKernels` stands: the operators run unchanged, on CPU tensors. A `.cu` file is
compiled once for all its instances and kept in the user's cache until it or the emulator changes.
"""

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from platformdirs import user_cache_path

from gpu_ops.grouped.kernel_file import KERNELS, Argument, Extent, KernelFile
from tests.file_lock import locked
from tests.gpu_ops.emulator.cuda_headers import cuda_include_folders

HEADER = Path(__file__).with_name("cuda_on_cpu.h")
FLAGS = [
    "-std=c++20",
    "-O1",
    "-fPIC",
    "-shared",
    "-fvisibility=hidden",  # or two loaded kernels share their static variables
    "-fno-strict-aliasing",
    "-U_FORTIFY_SOURCE",  # its longjmp refuses to change stacks
    "-w",
]
SANITIZERS = {
    # With lines and no more: what else a debugger reads costs the compiler time.
    "address": ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-g1"],
    "thread": ["-fsanitize=thread", "-gdwarf-4"],  # whose reports know no lines of newer versions
}
SANITIZER_CHOICE = "PETSTREAM_SANITIZED_KERNELS"
"""The environment variable that says which, for the process whose runtime was loaded first."""
UNASKED_SHARED_BYTES = 2 << 10
"""Dynamic, of a launch that did not ask for more: what a kernel has that takes 46 of the 48 KiB by
itself, as the largest ones do."""
MAX_SHARED_BYTES = 227 << 10
"""That can be asked for: of an H100."""
MAX_THREADS = 1024
DYNAMIC_SHARED = re.compile(
    r"extern\s+__shared__\s+(?:__align__\(\d+\)\s+)?([^;\[]+?)\s*\b(\w+)\s*\[\s*\]\s*;"
)
"""The one construct that a macro cannot map: it becomes a pointer."""
OWN_INCLUDE = re.compile(r'^#include "(\w+\.cuh)"$', re.MULTILINE)
IN_EMULATOR = {"tensor_core.cuh"}
"""Headers of instructions that no host has: `cuda_on_cpu.h` has what they offer."""
CELLS: dict[str, tuple[type, Callable[..., Any]]] = {
    "P": (int, ctypes.c_void_p),
    "i": (np.int32, ctypes.c_int32),
    "f": (np.float32, ctypes.c_float),
}
"""Code in a signature -> what a wrapper must pass, what the kernel reads."""


class KernelError(Exception):
    """A launch that a device would refuse, hang on, or answer at random."""


class EmulatedKernels:
    """One order of blocks, warps and lanes: 0 forward, 1 backward, else the seed of a shuffle."""

    def __init__(self, order: int = 0) -> None:
        self.order = order

    def get(self, file: KernelFile, name: str) -> "EmulatedKernel":
        """Return an instance by its C++ name, compiled when first asked for."""
        library = compiled(file.path.name, file.path.read_text(), tuple(file.names()))
        return EmulatedKernel(library, file.names().index(name), self.order)


class EmulatedKernel:
    """Called like a `cupy.RawKernel`."""

    def __init__(self, library: ctypes.CDLL, number: int, order: int) -> None:
        self._launch = getattr(library, f"launch_{number}")
        signature = getattr(library, f"signature_{number}")
        self._launch.restype = signature.restype = ctypes.c_char_p
        self.signature: str = signature().decode()
        self.max_dynamic_shared_size_bytes = UNASKED_SHARED_BYTES
        self._order = order

    def __call__(
        self, grid: Extent, block: Extent, args: Sequence[Argument], *, shared_mem: int = 0
    ) -> None:
        """Run to the end.

        Raises:
            KernelError: If a device would refuse, hang, or read what another lane has not written.
        """
        if min(grid) < 1:
            raise KernelError(f"a grid of {grid} has no blocks; CuPy would run one")
        if not 1 <= block[0] * block[1] * block[2] <= MAX_THREADS:
            raise KernelError(f"a block of {block} has not 1 to {MAX_THREADS} threads")
        if self.max_dynamic_shared_size_bytes > MAX_SHARED_BYTES:
            raise KernelError(f"no device has {self.max_dynamic_shared_size_bytes} bytes")
        if shared_mem > self.max_dynamic_shared_size_bytes:
            raise KernelError(f"{shared_mem} bytes of shared memory were not asked for")
        if len(args) != len(self.signature):
            raise KernelError(f"expected {len(self.signature)} arguments, got {len(args)}")
        cells = [
            _cell(argument, code, position)
            for position, (argument, code) in enumerate(zip(args, self.signature, strict=True))
        ]
        params = (ctypes.c_void_p * len(cells))(*[ctypes.addressof(cell) for cell in cells])
        message = self._launch(
            (ctypes.c_uint * 3)(*grid),
            (ctypes.c_uint * 3)(*block),
            ctypes.c_size_t(shared_mem),
            params,
            self._order,
        )
        if message:
            raise KernelError(message.decode())


def _cell(argument: Argument, code: str, position: int) -> Any:  # noqa: ANN401 - ctypes' scalars
    """Put an argument where the kernel will read it, as CuPy does, if it has the right type."""
    if code not in CELLS:
        raise KernelError(f"argument {position} is of a type that no wrapper passes")
    wanted, cell = CELLS[code]
    if type(argument) is not wanted:
        given = type(argument).__name__
        raise KernelError(f"argument {position} is {cell.__name__[2:]}, got {given} {argument}")
    return cell(argument if isinstance(argument, int) else argument.item())


def what_is_missing() -> str | None:
    """Return why nothing can be emulated here, or None."""
    if shutil.which("g++") is None:
        return "no g++"
    return None if cuda_include_folders() else "no CUDA headers"


def sanitizer_flags() -> list[str]:
    """Return what kernels are built with besides, as the environment says."""
    chosen = os.environ.get(SANITIZER_CHOICE)
    return [] if chosen is None else SANITIZERS[chosen]


@cache
def compiled(file_name: str, source: str, names: tuple[str, ...]) -> ctypes.CDLL:
    """Compile the instances of one source.

    Raises:
        KernelError: If it does not compile; the message is the compiler's.
    """
    flags = FLAGS + sanitizer_flags()
    exports = "\n".join(f"EMU_EXPORT({number}, {name})" for number, name in enumerate(names))
    body = f"{_with_own_includes(file_name, source, set(IN_EMULATOR))}\n{exports}\n"
    body = DYNAMIC_SHARED.sub(r"\1* \2 = reinterpret_cast<\1*>(emu::dynamic_shared());", body)
    header = _precompiled_header(tuple(flags))
    binary = header.parent / f"{Path(file_name).stem}-{_digest(body)}.so"
    with locked(binary.with_suffix(".lock")):
        if not binary.is_file():
            _gcc([*flags, "-include", str(header), "-x", "c++", "-"], body, binary)
    return ctypes.CDLL(str(binary))


def _with_own_includes(file_name: str, source: str, seen: set[str]) -> str:
    """Return the source with the headers beside it in place, each once, all lines numbered."""

    def text_of(match: re.Match[str]) -> str:
        name, line = match[1], source.count("\n", 0, match.start()) + 2
        if name in seen:
            return ""
        seen.add(name)
        header = _with_own_includes(name, (KERNELS / name).read_text(), seen)
        return f'{header}\n#line {line} "{file_name}"'

    return f'#line 1 "{file_name}"\n{OWN_INCLUDE.sub(text_of, source)}'


@cache
def _precompiled_header(flags: tuple[str, ...]) -> Path:
    """Compile the emulator and NVIDIA's types, which takes far longer than a kernel, only once."""
    text = HEADER.read_text()
    folder = user_cache_path("petstream") / "emulated-kernels" / _digest(text, *flags)
    header = folder / HEADER.name
    with locked(folder / "lock"):
        if not header.with_suffix(".h.gch").is_file():
            header.write_text(text)
            _gcc([*flags, "-x", "c++-header", str(header)], "", header.with_suffix(".h.gch"))
    return header


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:20]


def _gcc(arguments: Sequence[str], source: str, product: Path) -> None:
    """Compile into `product`, which appears whole or not at all."""
    partial = product.with_name(f"{os.getpid()}.{product.name}")
    includes = [f"-I{folder}" for folder in cuda_include_folders()]
    done = subprocess.run(
        ["g++", *includes, *arguments, "-o", str(partial)],
        input=source,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise KernelError(done.stderr)
    partial.replace(product)
