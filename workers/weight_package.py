"""Getting the wheels that carry backbones, through pip and whatever index the user's pip uses.

A wheel is only ever unpacked as a zip file: nothing of it is installed or imported. One model is
too large for a wheel and comes as a zip file cut into the parts that several wheels hold.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

from workers.backbone_catalogue import PackagedFile, SplitArchive, WeightPackage
from workers.errors import BackboneCorruptError, BackboneFetchError

Progress = Callable[[str, int, int], None]
"""Called with (what is going on, bytes done, bytes in all)."""

_POLL_S = 0.1
_CHUNK_BYTES = 1 << 20


def download_wheels(
    packages: Collection[WeightPackage], folder: Path, progress: Progress
) -> dict[WeightPackage, Path]:
    """Download the wheels into `folder`, which must be empty, and check their digests.

    Returns:
        Package -> its wheel.

    Raises:
        BackboneFetchError: If pip is not there, or could not get a wheel.
        BackboneCorruptError: If what came is not the pinned wheel.
    """
    requirements = folder / "requirements.txt"
    requirements.write_text(
        "".join(f"{p.requirement} --hash=sha256:{p.wheel_sha256}\n" for p in packages)
    )
    wheels = folder / "wheels"
    wheels.mkdir()
    done = threading.Event()
    total_bytes = sum(package.wheel_bytes for package in packages)
    watcher = threading.Thread(
        target=_watch, args=(folder, total_bytes, progress, done), name="wheel-progress"
    )
    watcher.start()
    try:
        _pip_download(requirements, wheels, folder)
    finally:
        done.set()
        watcher.join()
    progress("checking", total_bytes, total_bytes)
    by_digest = {file_sha256(wheel): wheel for wheel in wheels.glob("*.whl")}
    missing = [p.requirement for p in packages if p.wheel_sha256 not in by_digest]
    if missing:
        raise BackboneCorruptError(f"the wheel of {', '.join(missing)} is not the pinned one")
    return {package: by_digest[package.wheel_sha256] for package in packages}


def packages_of(files: Iterable[PackagedFile]) -> list[WeightPackage]:
    """Return the wheels that hold the files, or parts of their archives; each once."""
    packages: list[WeightPackage] = []
    for file in files:
        if isinstance(file.archive, SplitArchive):
            packages += [part.package for part in file.archive.parts]
        else:
            packages.append(file.archive)
    return list(dict.fromkeys(packages))


def join_parts(archive: SplitArchive, wheels: Mapping[WeightPackage, Path], target: Path) -> None:
    """Write the zip file whose parts lie in `wheels` to `target`.

    Raises:
        BackboneCorruptError: If a wheel lacks its part, or the whole is not the pinned file.
    """
    with target.open("wb") as sink:
        for part in archive.parts:
            _copy_member(wheels[part.package], part.member, sink)
    if file_sha256(target) != archive.sha256:
        names = ", ".join(part.package.requirement for part in archive.parts)
        raise BackboneCorruptError(f"what {names} hold together is not the pinned archive")


def extract(member: str, archive: Path, target: Path) -> None:
    """Write one member of a zip file, which every wheel is, to `target`.

    Raises:
        BackboneCorruptError: If there is no such member.
    """
    with target.open("wb") as sink:
        _copy_member(archive, member, sink)


def _copy_member(archive: Path, member: str, sink: BinaryIO) -> None:
    try:
        with zipfile.ZipFile(archive) as opened, opened.open(member) as source:
            shutil.copyfileobj(source, sink, _CHUNK_BYTES)
    except (KeyError, zipfile.BadZipFile) as error:
        raise BackboneCorruptError(f"{archive.name} has no {member}") from error


def file_sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _pip_download(requirements: Path, wheels: Path, scratch: Path) -> None:
    """Run pip; its scratch files go below `scratch`, where the watcher sees them grow."""
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
        *("--no-input", "--no-deps", "--only-binary", ":all:", "--require-hashes"),
        *("--requirement", str(requirements), "--dest", str(wheels)),
    ]
    process = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "TMPDIR": str(scratch)},
    )
    if process.returncode == 0:
        return
    if "No module named pip" in process.stderr:
        raise BackboneFetchError(
            f"{sys.executable} has no pip, which gets the weights: run "
            f"'{sys.executable} -m ensurepip'"
        )
    errors = [line for line in process.stderr.splitlines() if line.startswith("ERROR:")]
    reason = errors[0].removeprefix("ERROR: ") if errors else process.stderr.strip()[-200:]
    raise BackboneFetchError(
        f"pip could not get the weights: {reason}; check the network and pip's index settings, "
        "or add a copy from elsewhere with 'petstream models add NAME FOLDER'"
    )


def _watch(folder: Path, total_bytes: int, progress: Progress, done: threading.Event) -> None:
    """Report the bytes that have arrived below `folder` until `done`."""
    while not done.wait(_POLL_S):
        arrived = 0
        for path in folder.rglob("*"):
            try:
                arrived += path.stat().st_size
            except FileNotFoundError:  # pip moves files while this looks
                continue
        progress("downloading", min(arrived, total_bytes), total_bytes)
