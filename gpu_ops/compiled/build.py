"""Compiles the operators of this folder: `python -m gpu_ops.compiled.build`.

Needs a C++17 compiler and nothing else, no torch either. Without one it says so and ends well: the
operators of torch do the same. A library lies in a folder named by what it was made of, so that
one of other sources is never loaded.
"""

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).parent
SOURCES = sorted(FOLDER.glob("*.cpp"))
HEADERS = sorted(FOLDER.glob("*.h"))
BUILT = FOLDER / "build"

FLAGS = (
    "-std=c++17",
    "-O2",
    "-ffp-contract=fast",  # a * b + c as one instruction
    "-fPIC",
    "-shared",
    "-fvisibility=hidden",
    "-fno-exceptions",
    "-fno-rtti",
    "-Wno-psabi",  # vectors are passed within a file only
)
X86_VARIANTS: dict[str, tuple[str, ...]] = {
    "x86-64-v4": ("-march=x86-64-v4",),  # AVX-512
    "x86-64-v3": ("-march=x86-64-v3",),  # AVX2 and FMA
}
GENERIC: dict[str, tuple[str, ...]] = {"generic": ()}
"""What every processor of a kind can run: on ARM that is NEON."""
COMPILERS = ("c++", "g++", "clang++")


class CompilerFailed(Exception):
    """The compiler refused the sources; the message is its first error."""


def variants() -> dict[str, tuple[str, ...]]:
    """Return the variants of this kind of processor with their flags, the widest first."""
    return X86_VARIANTS if platform.machine().lower() in ("x86_64", "amd64") else GENERIC


def library_path(variant: str, folder: Path = BUILT) -> Path:
    """Return where the library of these sources and flags lies, whether it is there or not."""
    digest = hashlib.sha256(repr((FLAGS, X86_VARIANTS, GENERIC)).encode())
    for source in SOURCES + HEADERS:
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    return folder / digest.hexdigest()[:16] / f"{variant}.so"


def compiler() -> list[str] | None:
    """Return the command of the C++ compiler: `CXX`, or the first that is there."""
    named = shlex.split(os.environ.get("CXX", ""))
    if named:
        return named if shutil.which(named[0]) else None
    return next(([name] for name in COMPILERS if shutil.which(name)), None)


def build(command: list[str], variant: str, folder: Path = BUILT, more: Sequence[str] = ()) -> Path:
    """Compile one variant where it is missing and return its library.

    Args:
        command: The compiler.
        variant: A key of `X86_VARIANTS` or `GENERIC`.
        folder: Of the libraries.
        more: Flags behind all others, which they overrule. They are not in the library's name:
            give it a folder of its own.

    Raises:
        CompilerFailed: If the compiler does not take the sources or the flags.
    """
    library = library_path(variant, folder)
    if library.is_file():
        return library
    library.parent.mkdir(parents=True, exist_ok=True)
    flags = (*FLAGS, *(X86_VARIANTS | GENERIC)[variant], *more)
    # Moved in when it is whole: others may build or load it meanwhile.
    with tempfile.TemporaryDirectory(dir=library.parent) as own:
        unfinished = Path(own) / library.name
        ended = subprocess.run(
            [*command, *flags, *map(str, SOURCES), "-o", str(unfinished)],
            capture_output=True,
            text=True,
        )
        if ended.returncode != 0:
            lines = ended.stderr.splitlines()
            raise CompilerFailed(next((line for line in lines if "error" in line), "no message"))
        unfinished.replace(library)
    return library


def main() -> int:
    """Compile all variants of this kind of processor and say in a line each what came of it."""
    command = compiler()
    if command is None:
        sys.stdout.write("no C++ compiler found: operators run by torch, which is slower\n")
        return 0
    for variant in variants():
        try:
            said = f"compiled operators: {build(command, variant)}"
        except (CompilerFailed, OSError) as error:
            said = f"operators not compiled for {variant}, torch runs them: {error}"
        sys.stdout.write(f"{said}\n")
    _remove_stale(BUILT)
    return 0


def _remove_stale(folder: Path) -> None:
    current = library_path("any", folder).parent
    for other in folder.glob("*"):
        if other != current:
            shutil.rmtree(other, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
