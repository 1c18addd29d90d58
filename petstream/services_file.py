"""The file by which `up`, `down` and `status` know of each other: what runs, and under whom."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import psutil

from petstream.supervisor import ProcessStatus

State = Literal["starting", "serving", "stopping"]


class AlreadyUpError(RuntimeError):
    """Another `petstream up` has this state folder."""


@dataclass(frozen=True, slots=True)
class RunningServices:
    """One running `petstream up`."""

    supervisor_pid: int
    supervisor_started_s: float
    """Start time of the supervisor's process, which tells it from a later process of that pid."""
    state: State
    bootstrap_servers: str
    """Empty while the embedded broker starts."""
    namespace: str
    delivery: str
    embedded_broker: bool
    processes: tuple[ProcessStatus, ...]

    @property
    def on_broker(self) -> str:
        """Where its broker is, as words to go behind "up"; empty while the broker starts."""
        return f" on {self.bootstrap_servers}" if self.bootstrap_servers else ""

    @property
    def is_ready(self) -> bool:
        """Whether every process serves."""
        return self.state == "serving" and all(
            process.state == "ready" for process in self.processes
        )


def path_in(state_dir: Path) -> Path:
    """Return where the file lies."""
    return state_dir / "services.json"


@contextmanager
def held(state_dir: Path) -> Iterator[None]:
    """Hold the state folder for the block, however it ends, and remove the file at its end.

    Raises:
        AlreadyUpError: If another process holds it.
    """
    state_dir.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(state_dir / "up.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyUpError("already up; stop it with `petstream down`") from None
        try:
            yield
        finally:
            path_in(state_dir).unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def write(state_dir: Path, services: RunningServices) -> None:
    """Replace the file."""
    path = path_in(state_dir)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(asdict(services), indent=2))
    partial.replace(path)


def read(state_dir: Path) -> RunningServices | None:
    """Return what runs; None where nothing runs, whatever a dead supervisor left behind."""
    try:
        said = json.loads(path_in(state_dir).read_text())
        said["processes"] = tuple(ProcessStatus(**process) for process in said["processes"])
        services = RunningServices(**said)
    except (FileNotFoundError, ValueError, TypeError, KeyError):  # absent, or of another version
        return None
    try:
        started_s = psutil.Process(services.supervisor_pid).create_time()
    except psutil.NoSuchProcess:
        return None
    return services if started_s == services.supervisor_started_s else None
