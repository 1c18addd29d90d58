"""Writes artifacts: what a training recipe or `petstream calibrate` leaves behind.

A new folder appears whole or not at all. In a folder that exists, weight files are replaced first
and `task.json` last: a crash between them leaves an artifact that readers refuse
(`ChecksumMismatch`), never one that answers wrongly; other files of the folder stay.
"""

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from messages.task_event import TaskKind
from messages.truncation import Truncation
from tasks.artifact import (
    DESCRIPTION_FILE,
    HEAD_BIAS,
    HEAD_WEIGHT,
    HIDDEN_BIAS,
    HIDDEN_WEIGHT,
    Artifact,
    open_artifact,
)
from tasks.backbone_shape import BackboneShape
from tasks.description import (
    FORMAT,
    BackboneReference,
    Cascade,
    EmbeddingLayout,
    HeadLayout,
    LevelDescription,
    Pooling,
    TaskDescription,
)
from tasks.errors import ArtifactExists
from tasks.pets.kinds import AnyPet
from tasks.pets.pet import StoredFloat, Tensors, to_stored_float
from tasks.weight_file import to_bytes


@dataclass(frozen=True, slots=True, eq=False)
class TrainedLevel:
    """One level as a training recipe has it in memory."""

    level: int
    backbone: BackboneReference
    shape: BackboneShape
    pet: AnyPet
    pooling: Pooling
    max_tokens: int
    head_weight: NDArray[np.floating] | None
    """Shape (num_outputs, features). None, as the bias, of a head without a last layer."""
    head_bias: NDArray[np.floating] | None
    """Shape (num_outputs,)."""
    tensors: Tensors
    """The PET's tensors in their dense form (`Pet.encode`)."""
    truncation: Truncation | None = None
    """None: `head`."""
    head: HeadLayout | None = None
    hidden_weight: NDArray[np.floating] | None = None
    """Shape (features, hidden): of a head with a hidden layer of its own."""
    hidden_bias: NDArray[np.floating] | None = None
    """Shape (features,)."""


def write_artifact(
    folder: Path,
    *,
    name: str,
    kind: TaskKind,
    labels: Sequence[str],
    embedding: EmbeddingLayout | None = None,
    takes_pair: bool,
    source: str,
    licence: str,
    levels: Sequence[TrainedLevel],
    cascade: Cascade | None = None,
    dtype: StoredFloat = "float16",
    overwrite: bool = False,
) -> Artifact:
    """Write a task as revision 1 (a store assigns its own); equal input gives equal bytes.

    Raises:
        ArtifactExists: If the folder is there and not to be overwritten.
        ArtifactError: One of its subclasses, if the artifact would not be valid; nothing is
            written then.
        pydantic.ValidationError: If a field of the description is bad; nothing is written then.
    """
    if folder.exists() and not overwrite:
        raise ArtifactExists(f"{folder} is there already: choose another, or overwrite it")
    files = {_file_name(trained.level): _level_bytes(trained, dtype) for trained in levels}
    description = TaskDescription(
        format=FORMAT,
        name=name,
        revision=1,
        kind=kind,
        labels=tuple(labels),
        embedding=embedding,
        takes_pair=takes_pair,
        source=source,
        licence=licence,
        levels=tuple(_describe(trained, files) for trained in levels),
        cascade=cascade,
    )
    return _write(folder, description, files, {trained.level: trained.shape for trained in levels})


def add_level(folder: Path, trained: TrainedLevel, *, dtype: StoredFloat = "float16") -> Artifact:
    """Add a level to the artifact in `folder`, or replace it.

    The cascade is left out: it was fitted for other levels.

    Raises:
        ArtifactError: One of its subclasses, if the folder is no valid artifact or the level would
            not be; nothing is changed then.
    """
    old = open_artifact(folder).description
    files = {_file_name(trained.level): _level_bytes(trained, dtype)}
    kept = tuple(level for level in old.levels if level.level != trained.level)
    levels = sorted((*kept, _describe(trained, files)), key=lambda level: level.level)
    # Built anew: model_copy does not validate.
    fields = dict(old) | {"levels": tuple(levels), "cascade": None}
    description = TaskDescription(**fields)
    return _write(folder, description, files, {trained.level: trained.shape})


def replace_cascade(folder: Path, cascade: Cascade | None) -> Artifact:
    """Write another cascade into the description of the artifact in `folder`.

    Raises:
        ArtifactError: One of its subclasses, if the folder is no valid artifact.
        pydantic.ValidationError: If the cascade does not fit the task; nothing is changed then.
    """
    fields = dict(open_artifact(folder).description) | {"cascade": cascade}
    return _write(folder, TaskDescription(**fields), {}, {})


@contextmanager
def staging_folder(beside: Path, prefix: str) -> Iterator[Path]:
    """Make an empty folder in `beside` for the time of the block; it may be renamed away."""
    beside.mkdir(parents=True, exist_ok=True)
    staging = beside / f"{prefix}{secrets.token_hex(8)}"
    staging.mkdir()
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def write_durably(path: Path, raw: bytes) -> None:
    """Write a new file and wait until the disk has it."""
    with path.open("xb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the folder's entries."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _write(
    folder: Path,
    description: TaskDescription,
    files: Mapping[str, bytes],
    shapes: Mapping[int, BackboneShape],
) -> Artifact:
    """Stage, read back as any reader would, then move into place."""
    with staging_folder(folder.parent, f".{folder.name}-") as staging:
        for file_name, raw in files.items():
            write_durably(staging / file_name, raw)
        write_durably(staging / DESCRIPTION_FILE, description.to_bytes())
        staged = open_artifact(staging)
        for level, shape in shapes.items():
            staged.load_level(level, shape)
        if folder.exists():
            for file_name in (*files, DESCRIPTION_FILE):
                (staging / file_name).replace(folder / file_name)
        else:
            sync_folder(staging)
            staging.rename(folder)
    sync_folder(folder)
    sync_folder(folder.parent)
    return open_artifact(folder, expected_digest=staged.digest)


def _file_name(level: int) -> str:
    return f"level-{level}.safetensors"


def _level_bytes(trained: TrainedLevel, dtype: StoredFloat) -> bytes:
    head = {
        name: to_stored_float(name, values, dtype)
        for name, values in (
            (HEAD_WEIGHT, trained.head_weight),
            (HEAD_BIAS, trained.head_bias),
            (HIDDEN_WEIGHT, trained.hidden_weight),
            (HIDDEN_BIAS, trained.hidden_bias),
        )
        if values is not None
    }
    pet: dict[str, NDArray[Any]] = trained.pet.encode(trained.shape, trained.tensors, dtype)
    return to_bytes(head | pet)


def _describe(trained: TrainedLevel, files: Mapping[str, bytes]) -> LevelDescription:
    file_name = _file_name(trained.level)
    return LevelDescription(
        level=trained.level,
        backbone=trained.backbone,
        pet=trained.pet,
        pooling=trained.pooling,
        max_tokens=trained.max_tokens,
        truncation=trained.truncation,
        head=trained.head,
        file=file_name,
        sha256=hashlib.sha256(files[file_name]).hexdigest(),
    )
