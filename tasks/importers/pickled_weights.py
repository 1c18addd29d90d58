"""`.bin` and `.pt` files: pickles of tensors, read in a child process with limits.

The child loads with `weights_only=True`, which runs no code of the file, and hands the tensors
back as safetensors. Whatever the file does to it (memory, time, a crash in the parser) the child
bears alone. Archives are looked at before: torch stores members whole and once, so one that
is compressed, or whose members add up to more than the file, was not written by it.
"""

import io
import json
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tasks.errors import BadCheckpoint, PickleCarriesCode, PickleTooCostly
from tasks.importers.tensor_file import TensorFile

MAX_PICKLE_BYTES = 2 << 30
_PROGRAM = Path(__file__).with_name("unpickle.py")
_ZIP_MAGIC, _PICKLE_MAGIC = b"PK\x03\x04", b"\x80"
_MAX_MEMBERS = 20_000
_MAX_INDEX_BYTES = 64 << 20
_CONVERT = "load it where you trust it and save it as safetensors"


@dataclass(frozen=True, slots=True)
class Limits:
    """What reading one file may take."""

    memory_bytes: int
    """Beyond what torch itself takes once it is imported."""
    cpu_s: int = 120
    wall_s: float = 300.0
    """With the start of the child and the import of torch."""


def limits_for(num_bytes: int) -> Limits:
    """Return what an honest file of that size needs with room to spare.

    The file itself mapped or read, its tensors, and their copies with an own place in memory.
    """
    return Limits(memory_bytes=(512 << 20) + 4 * num_bytes)


def read_pickle(
    raw: bytes, source: str, limits: Limits | None = None
) -> tuple[TensorFile, list[str]]:
    """Read the tensors of a pickle.

    Args:
        raw: The whole file.
        source: Its name, for messages.
        limits: None: by the file's size.

    Returns:
        The tensors, and the names of entries that are none (at most 50).

    Raises:
        PickleCarriesCode: If it names something that tensors do not need.
        PickleTooCostly: If it takes more than `limits`, or would.
        BadCheckpoint: If it is cut off, no pickle of tensors, or breaks the reader.
    """
    limits = limits or limits_for(len(raw))
    if not raw.startswith((_ZIP_MAGIC, _PICKLE_MAGIC)):
        raise BadCheckpoint(f"{source} is neither an archive of torch nor a pickle: copy it again")
    if raw.startswith(_ZIP_MAGIC):
        _check_archive(raw, source)
    with TemporaryDirectory(prefix="petstream-unpickle-") as folder:
        taken, given = Path(folder, "in"), Path(folder, "out")
        taken.write_bytes(raw)
        outcome = _run(taken, given, source, limits)
        match outcome["error"]:
            case None:
                return TensorFile(given.read_bytes(), source), outcome["skipped"]
            case "code":
                raise PickleCarriesCode(
                    f"{source} asks for more than tensors ({outcome['message']}): it was not "
                    f"run; {_CONVERT}"
                )
            case "cost":
                raise PickleTooCostly(f"{source} cannot be read: {outcome['message']}; {_CONVERT}")
            case _:
                raise BadCheckpoint(
                    f"{source} is no pickle of tensors ({outcome['message']}): copy it again, or "
                    f"{_CONVERT}"
                )


def _check_archive(raw: bytes, source: str) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, EOFError) as error:
        raise BadCheckpoint(f"{source} is cut off or damaged ({error}): copy it again") from error
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise PickleTooCostly(f"{source} is compressed, as torch never writes: {_CONVERT}")
    declared = sum(member.file_size for member in members)
    index = max((m.file_size for m in members if m.filename.endswith(".pkl")), default=0)
    if declared > len(raw) or len(members) > _MAX_MEMBERS or index > _MAX_INDEX_BYTES:
        raise PickleTooCostly(
            f"{source} declares {declared} bytes in {len(members)} members and has {len(raw)}: "
            f"{_CONVERT}"
        )


def _run(taken: Path, given: Path, source: str, limits: Limits) -> dict[str, Any]:
    arguments = [str(taken), str(given), str(limits.memory_bytes), str(limits.cpu_s)]
    try:
        child = subprocess.run(
            [sys.executable, "-I", str(_PROGRAM), *arguments],
            cwd=taken.parent,
            env={"HOME": str(taken.parent), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=limits.wall_s,
            start_new_session=True,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise PickleTooCostly(
            f"{source} was not read within {limits.wall_s:g} s: {_CONVERT}"
        ) from None
    if child.returncode < 0:
        raise PickleTooCostly(
            f"{source} ended its reader with signal {-child.returncode} (too much time, or a "
            f"crash): {_CONVERT}"
        )
    try:
        outcome = json.loads(child.stdout)
    except ValueError:
        last = child.stderr.decode(errors="replace").strip().rpartition("\n")[2][:300]
        raise BadCheckpoint(
            f"{source} broke its reader ({last or 'no word'}): is torch installed? Otherwise "
            f"{_CONVERT}"
        ) from None
    assert isinstance(outcome, dict)
    return outcome
