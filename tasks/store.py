"""The tasks of one machine: `<root>/<task>/<revision>/`, each revision written once.

Several processes may use a store at once. Changes hold a file lock; readers need none, since a
revision appears and disappears whole, by a rename.
"""

import fcntl
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from messages.task_event import TaskReference
from tasks.artifact import DESCRIPTION_FILE, Artifact, check_sha256, level_specs, open_artifact
from tasks.artifact_writer import staging_folder, sync_folder, write_durably
from tasks.backbone_shape import BackboneShape
from tasks.bfloat16_record import LevelComparison, write_record
from tasks.description import TaskDescription
from tasks.errors import (
    ArtifactError,
    ArtifactMissing,
    BackboneUnknown,
    PathEscape,
    RevisionConflict,
    StoreUnusable,
    TaskNotInStore,
)
from tasks.safe_folder import SafeFolder
from tasks.weight_file import max_file_bytes

_LOCK_FILE = ".lock"
_STAGING_PREFIX = ".staging-"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z")
_REVISION = re.compile(r"[1-9][0-9]{0,8}\Z")


class TaskStore:
    """The store at `root`, which is made when the first task is added."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def add(
        self,
        source: Path,
        shapes: Mapping[str, BackboneShape],
        *,
        registered: Mapping[int, str] | None = None,
    ) -> Artifact:
        """Validate the artifact in `source` and copy it into the store.

        It becomes the revision after the last one, unless a revision has the same content: then
        it is that one, whose copy in the store is written again where it is damaged or absent.

        Args:
            source: An artifact's folder; its own revision does not count.
            shapes: Of the backbones, by name.
            registered: Digests of the revisions of this task that other stores may hold.

        Raises:
            ArtifactError: One of its subclasses, if the artifact is not valid.
            RevisionConflict: If the content is registered as a revision that is something else in
                this store.
            StoreUnusable: If the store cannot be written.
        """
        description = open_artifact(source).description
        with self._locked():
            known = self._digests(description.name) | dict(registered or {})
            revision = _find(description, known) or max(known, default=0) + 1
            description = with_revision(description, revision)
            stored = self._open(description.name, revision)
            if stored is not None and stored.digest != description.digest():
                raise RevisionConflict(
                    f"{stored.folder} is not the registered revision {revision} of "
                    f"{description.name}: move it away and add the task again"
                )
            if stored is not None and _is_valid(stored, shapes):
                return stored
            return self._install(source, description, shapes)

    def record_comparison(self, stored: Artifact, levels: Sequence[LevelComparison]) -> None:
        """Write what was found of a stored task in bfloat16; workers go by it from its next load.

        Raises:
            StoreUnusable: If the store cannot be written.
        """
        with self._locked():
            write_record(stored.folder, levels)

    def open(self, reference: TaskReference) -> Artifact:
        """Open exactly the revision that was registered.

        Raises:
            TaskNotInStore: If it is not there.
            ChecksumMismatch: If its description is not the registered one.
            ArtifactError: One of its other subclasses, if it is not valid.
        """
        inner = _inner(reference.name, reference.revision)
        try:
            return open_artifact(self.root, inner, expected_digest=reference.digest)
        except ArtifactMissing as error:
            raise _not_in_store(self.root, reference.name, reference.revision) from error

    def find(self, name: str, revision: int | None = None) -> Artifact:
        """Open a revision by its number, or the newest, without a registry.

        Raises:
            TaskNotInStore: If it is not there.
            ArtifactError: One of its subclasses, if it is not valid.
        """
        _inner(name, 1)
        revisions = self._revisions(name)
        wanted = revision or max(revisions, default=1)
        if wanted not in revisions:
            raise _not_in_store(self.root, name, wanted)
        return open_artifact(self.root, _inner(name, wanted))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            fd = os.open(self.root / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise _unusable(self.root, error) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            # Staging folders live under the lock: one that is seen here was left by a crash.
            for stale in self.root.glob(f"{_STAGING_PREFIX}*"):
                shutil.rmtree(stale, ignore_errors=True)
            yield
        except OSError as error:
            raise _unusable(self.root, error) from error
        finally:
            os.close(fd)

    def _install(
        self, source: Path, description: TaskDescription, shapes: Mapping[str, BackboneShape]
    ) -> Artifact:
        inner = _inner(description.name, description.revision)
        with staging_folder(self.root, _STAGING_PREFIX) as staging:
            _copy(source, staging, description, shapes)
            open_artifact(staging).validate(shapes)
            sync_folder(staging)
            target = self.root.joinpath(*inner)
            target.parent.mkdir(exist_ok=True)
            if target.exists():
                self._move_away(description.name, description.revision)
            staging.rename(target)
        sync_folder(target.parent)
        sync_folder(self.root)
        return open_artifact(self.root, inner, expected_digest=description.digest())

    def _move_away(self, name: str, revision: int) -> None:
        with staging_folder(self.root, _STAGING_PREFIX) as trash:
            self.root.joinpath(*_inner(name, revision)).rename(trash / "removed")

    def _open(self, name: str, revision: int) -> Artifact | None:
        """Open a revision; None where it is absent or its description cannot be read."""
        try:
            return open_artifact(self.root, _inner(name, revision))
        except ArtifactError:
            return None

    def _digests(self, name: str) -> dict[int, str]:
        artifacts = {revision: self._open(name, revision) for revision in self._revisions(name)}
        # A revision that cannot be read still takes its number.
        return {
            revision: artifact.digest if artifact is not None else ""
            for revision, artifact in artifacts.items()
        }

    def _revisions(self, name: str) -> tuple[int, ...]:
        try:
            entries = os.listdir(self.root / name)
        except (FileNotFoundError, NotADirectoryError):
            return ()
        except OSError as error:
            raise _unusable(self.root / name, error) from error
        return tuple(sorted(int(entry) for entry in entries if _REVISION.match(entry)))


def with_revision(description: TaskDescription, revision: int) -> TaskDescription:
    """Return the same task as another revision."""
    return TaskDescription(**(dict(description) | {"revision": revision}))


def _find(description: TaskDescription, digests: Mapping[int, str]) -> int | None:
    for revision, digest in digests.items():
        if with_revision(description, revision).digest() == digest:
            return revision
    return None


def _is_valid(artifact: Artifact, shapes: Mapping[str, BackboneShape]) -> bool:
    try:
        artifact.validate(shapes)
    except BackboneUnknown:
        raise
    except ArtifactError:
        return False
    return True


def _copy(
    source: Path,
    target: Path,
    description: TaskDescription,
    shapes: Mapping[str, BackboneShape],
) -> None:
    with SafeFolder(source) as folder:
        for level in description.levels:
            shape = shapes.get(level.backbone.name)
            if shape is None:
                raise BackboneUnknown(
                    f"level {level.level} needs backbone {level.backbone.name}: fetch it with "
                    f"`petstream models fetch {level.backbone.name}`"
                )
            specs = level_specs(level, description.num_outputs, shape)
            raw = folder.read(level.file, max_file_bytes(specs))
            check_sha256(raw, level)
            write_durably(target / level.file, raw)
    write_durably(target / DESCRIPTION_FILE, description.to_bytes())


def _inner(name: str, revision: int) -> tuple[str, str]:
    if not _NAME.match(name):
        raise PathEscape(f"{name[:100]!r} is not a task's name: use lower-case letters and digits")
    return name, str(revision)


def _not_in_store(root: Path, name: str, revision: int) -> TaskNotInStore:
    return TaskNotInStore(
        f"{name} revision {revision} is not in {root}: add it with `petstream tasks add`, or point "
        f"PETSTREAM_TASKS_DIR to the store that has it"
    )


def _unusable(root: Path, error: OSError) -> StoreUnusable:
    return StoreUnusable(
        f"the task store {root} cannot be used ({error.strerror or error}): check that it is a "
        f"folder of yours, or set PETSTREAM_TASKS_DIR"
    )
