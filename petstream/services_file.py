"""The file by which `up`, `down` and `status` know of each other: what runs, and under whom."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from petstream.supervisor import ProcessStatus


@dataclass(frozen=True, slots=True)
class RunningServices:
    """One running `petstream up`."""

    supervisor_pid: int
    supervisor_started_s: float
    """Start time of the supervisor's process, which tells it from a later process of that pid."""
    bootstrap_servers: str
    namespace: str
    delivery: str
    embedded_broker: bool
    processes: tuple[ProcessStatus, ...]

    @property
    def is_ready(self) -> bool:
        """Whether every process serves."""
        return all(process.state == "ready" for process in self.processes)


def path_in(state_dir: Path) -> Path:
    """Return where the file lies."""
    return state_dir / "services.json"


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
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    said["processes"] = tuple(ProcessStatus(**process) for process in said["processes"])
    services = RunningServices(**said)
    try:
        started_s = psutil.Process(services.supervisor_pid).create_time()
    except psutil.NoSuchProcess:
        return None
    return services if started_s == services.supervisor_started_s else None


def remove(state_dir: Path) -> None:
    """Say that nothing runs any more."""
    path_in(state_dir).unlink(missing_ok=True)
