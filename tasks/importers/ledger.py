"""The tensors of a checkpoint, and which of them have become part of the task.

A parser asks for the tensors that the checkpoint's configuration calls for. What it asked for in
vain is an error that names all of it, and what it did not ask for is told.
"""

from collections.abc import Callable, Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from tasks.errors import BadCheckpoint, KeyMissing
from tasks.importers.imported import Finding
from tasks.importers.sources import TensorsByName

_NUM_SHOWN = 5


class Ledger:
    """A checkpoint's tensors under the names that a parser knows them by."""

    def __init__(self, tensors: TensorsByName, rename: Callable[[str], str] = str) -> None:
        """Take the tensors.

        Args:
            tensors: By the names in the file.
            rename: From a name in the file to the parser's.

        Raises:
            BadCheckpoint: If two tensors get one name.
        """
        self._tensors = tensors
        self._in_file: dict[str, str] = {}
        for name in tensors:
            ours = rename(name)
            if ours in self._in_file:
                raise BadCheckpoint(
                    f"{name} and {self._in_file[ours]} are one tensor under its old and its new "
                    f"name: save the checkpoint again from the library"
                )
            self._in_file[ours] = name
        self._used: set[str] = set()
        self._missing: list[str] = []

    def __contains__(self, name: str) -> bool:
        return name in self._in_file

    def names(self) -> list[str]:
        """Return all names."""
        return list(self._in_file)

    def left(self) -> list[str]:
        """Return the names of tensors that nobody has asked for."""
        return [name for name in self._in_file if name not in self._used]

    def peek(self, name: str) -> NDArray[np.float32]:
        """Return a tensor that is there, without having used it."""
        return self._tensors[self._in_file[name]]

    def take(self, name: str, *shape: int) -> NDArray[np.float32]:
        """Return a tensor of the shape; zeros where it is missing, which `check` then tells.

        Raises:
            BadCheckpoint: If it has another shape, or holds NaN or infinity.
        """
        if name not in self._in_file:
            self._missing.append(name)
            return np.zeros(shape, np.float32)
        found = np.asarray(self.peek(name), np.float32)
        if found.shape != shape:
            raise BadCheckpoint(
                f"{self._in_file[name]} has shape {list(found.shape)}, expected {list(shape)}: the "
                f"checkpoint's configuration or the backbone is another one"
            )
        if not np.isfinite(found).all():
            raise BadCheckpoint(f"{self._in_file[name]} has NaN or infinity: train it again")
        self._used.add(name)
        return found

    def take_copy(self, copy: str, of: NDArray[np.float32]) -> None:
        """Use a tensor that some libraries save a second time.

        Raises:
            BadCheckpoint: If it is there and differs.
        """
        if copy not in self._in_file:
            return
        if not np.array_equal(self.peek(copy), of):
            raise BadCheckpoint(
                f"{self._in_file[copy]} differs from the tensor that it is a copy of: save the "
                f"checkpoint again from the library"
            )
        self._used.add(copy)

    def used_keys(self) -> frozenset[str]:
        """Return the names in the file of tensors that were used."""
        return frozenset(self._in_file[name] for name in self._used)

    def check(self) -> None:
        """Check that all that was asked for is there.

        Raises:
            KeyMissing: If not; it names them.
        """
        if self._missing:
            raise KeyMissing(
                f"missing_key: the configuration calls for {_some(self._missing)}, which the "
                f"checkpoint does not hold: save it again, or mend its configuration"
            )

    def unused(self) -> list[Finding]:
        """Return what to tell about tensors that were left."""
        left = [self._in_file[name] for name in self.left()]
        if not left:
            return []
        message = (
            f"{_some(left)} in the checkpoint, which its configuration does not call for: not taken"
        )
        return [Finding("warning", "unused_key", message)]


def without_prefix(prefix: str) -> Callable[[str], str]:
    """Return a renaming that drops a prefix and leaves names without it."""
    return lambda name: name.removeprefix(prefix)


def is_zero(tensors: Iterable[NDArray[np.float32]]) -> bool:
    """Whether there are tensors and all are zero."""
    found = list(tensors)
    return bool(found) and not any(tensor.any() for tensor in found)


def merge(parts: Iterable[Mapping[str, NDArray[np.float32]]]) -> dict[str, NDArray[np.float32]]:
    """Return the tensors of all parts in one."""
    return {name: tensor for part in parts for name, tensor in part.items()}


def _some(names: list[str]) -> str:
    shown = ", ".join(name[:150] for name in names[:_NUM_SHOWN])
    rest = f" and {len(names) - _NUM_SHOWN} more" if len(names) > _NUM_SHOWN else ""
    return f"{shown}{rest}"
