"""One broker per data folder: a lock that lives exactly as long as the broker's process.

Kafka has a lock of its own, but takes it too late: by then the second process's controller has
opened the metadata log of the first, which from then on answers no request that changes metadata
(seen with 4.4.0).
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transport.embedded_broker.errors import DataDirInUseError


@contextmanager
def locked(data_dir: Path, log_path: Path) -> Iterator[int]:
    """Lock the folder for the block, and on for every process that inherits the descriptor.

    The kernel keeps a `flock` until the last copy of its descriptor is closed, in whatever way the
    holder ends.

    Raises:
        DataDirInUseError: If a process holds it.
    """
    descriptor = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataDirInUseError(data_dir, log_path) from None
        yield descriptor
    finally:
        os.close(descriptor)
