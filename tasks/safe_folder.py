"""Reads files of a folder that somebody else may have made, without leaving the folder.

Files are opened relative to the folder's own descriptor, never through a link, and only when
they are regular: neither a renamed parent nor a link nor a pipe leads elsewhere or blocks.
"""

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from tasks.errors import ArtifactMissing, FileTooLarge, FormatForbidden, PathEscape

_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# O_NONBLOCK: opening a pipe without a writer must not wait for one.
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class SafeFolder:
    """An open folder; a context manager.

    Args:
        base: A folder that the caller trusts; links in this path are followed.
        inner: Names below it, one level each; none of them may be a link.

    Raises:
        ArtifactMissing: If there is no such folder or it cannot be opened.
        PathEscape: If a name of `inner` is not plain, or is a link.
        FormatForbidden: If `base` is a file.
    """

    def __init__(self, base: Path, inner: Sequence[str] = ()) -> None:
        self._path = base.joinpath(*inner)
        self._fd = _open_base(base)
        for name in inner:
            try:
                below = self._open(name, _FOLDER_FLAGS | os.O_NOFOLLOW)
            finally:
                os.close(self._fd)
            self._fd = below

    def __enter__(self) -> "SafeFolder":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._fd)

    def names(self) -> list[str]:
        """Return what lies in the folder, in order.

        Raises:
            ArtifactMissing: If the folder cannot be listed.
        """
        try:
            return sorted(os.listdir(self._fd))
        except OSError as error:
            raise ArtifactMissing(f"{self._path} cannot be listed ({error.strerror})") from error

    def read(self, name: str, max_bytes: int) -> bytes:
        """Read one regular file whole, through one descriptor.

        Raises:
            ArtifactMissing: If there is no such file or it cannot be read.
            PathEscape: If the name is not plain, or is a link, or anything but a regular file.
            FileTooLarge: If it has more than `max_bytes`.
        """
        path = self._path / name
        fd = self._open(name, _FILE_FLAGS)
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise PathEscape(f"{path} is not a regular file: put the file there")
            with os.fdopen(fd, "rb", closefd=False) as file:
                # One byte more than there should be: the file may grow while it is read.
                raw = file.read(min(found.st_size, max_bytes) + 1)
        except OSError as error:
            raise ArtifactMissing(f"{path} cannot be read ({error.strerror})") from error
        finally:
            os.close(fd)
        if len(raw) > max_bytes:
            raise FileTooLarge(
                f"{path} is larger than the {max_bytes} bytes that a valid one can "
                f"have: write the artifact again"
            )
        return raw

    def _open(self, name: str, flags: int) -> int:
        if name in ("", ".", "..") or "/" in name or "\0" in name:
            raise PathEscape(f"{name!r} is not a plain file name: name a file of the folder itself")
        path = self._path / name if flags & os.O_NONBLOCK else self._path
        try:
            return os.open(name, flags, dir_fd=self._fd)
        except FileNotFoundError:
            raise ArtifactMissing(f"{path} is missing: give the folder of a trained task") from None
        except OSError as error:
            # Linux answers ENOTDIR, not ELOOP, for a link that was to be opened as a folder.
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise PathEscape(f"{path} leads through a link: copy the files there") from error
            raise ArtifactMissing(f"{path} cannot be read ({error.strerror})") from error


def _open_base(base: Path) -> int:
    try:
        return os.open(base, _FOLDER_FLAGS)
    except FileNotFoundError:
        raise ArtifactMissing(f"{base} is missing: give the folder of a trained task") from None
    except NotADirectoryError:
        raise FormatForbidden(
            f"{base} is not a folder: archives and pickles are not read, give a folder with "
            f"task.json and safetensors files"
        ) from None
    except (OSError, ValueError) as error:
        raise ArtifactMissing(f"{base} cannot be opened ({error})") from error
