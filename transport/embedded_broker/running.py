"""The file by which separate commands know of one running broker."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from transport.embedded_broker.broker import EmbeddedBroker
from transport.embedded_broker.process import JavaProcess

_FILE_NAME = "broker.json"


@dataclass(frozen=True, slots=True)
class RunningBroker:
    """A broker that some process of this user started."""

    pid: int
    started_s: float
    """Start time of the process, seconds since the epoch; tells it from a later one of that pid."""
    bootstrap_servers: str
    data_dir: str
    log_path: str

    def process(self) -> JavaProcess | None:
        """Return its process, if it still runs."""
        return JavaProcess.adopt(self.pid, self.started_s)


def announce(broker: EmbeddedBroker, state_dir: Path) -> RunningBroker:
    """Write the file for a broker that has started."""
    running = RunningBroker(
        pid=broker.process.pid,
        started_s=broker.process.started_s,
        bootstrap_servers=broker.bootstrap_servers,
        data_dir=str(broker.data_dir.resolve()),
        log_path=str(broker.log_path.resolve()),
    )
    state_dir.mkdir(parents=True, exist_ok=True)
    # A reader never sees half a file, and two writers do not share a partial one.
    partial = state_dir / f"{_FILE_NAME}.{os.getpid()}"
    partial.write_text(json.dumps(asdict(running), indent=2))
    partial.replace(state_dir / _FILE_NAME)
    return running


def find_running(state_dir: Path) -> RunningBroker | None:
    """Return the broker that was announced here and still runs; a stale file counts as none."""
    try:
        running = RunningBroker(**json.loads((state_dir / _FILE_NAME).read_text()))
    except (OSError, ValueError, TypeError):  # absent, or not a file of this version
        return None
    return running if running.process() is not None else None


def withdraw(state_dir: Path, running: RunningBroker) -> None:
    """Remove the file, unless it speaks of another broker by now."""
    try:
        said = json.loads((state_dir / _FILE_NAME).read_text())
    except (OSError, ValueError):
        return
    if said == asdict(running):
        (state_dir / _FILE_NAME).unlink(missing_ok=True)


@contextmanager
def announced(broker: EmbeddedBroker, state_dir: Path) -> Iterator[RunningBroker]:
    """Announce a broker for the time of the block."""
    running = announce(broker, state_dir)
    try:
        yield running
    finally:
        withdraw(state_dir, running)
