"""Runs service processes and starts a crashed one again.

The supervisor knows processes, not Kafka: each service is this command line run once more, with
its own log file and health file under the state directory.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from transport.health import read_health

ProcessState = Literal["starting", "ready", "stalled", "restarting", "stopped"]

FIRST_BACKOFF_S = 0.2
LONGEST_BACKOFF_S = 10.0
SETTLED_AFTER_S = 30.0
"""A service that ran this long before it crashed is started again without a longer pause."""


class ServiceNotReadyError(RuntimeError):
    """A service did not get ready in time; the message names its log."""


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """One service process."""

    name: str
    """Unique among the services of this machine."""
    role: Literal["scheduler", "worker"]
    level: int | None
    arguments: tuple[str, ...]
    """Arguments of the `petstream` command, without health file, slot and supervisor."""

    @property
    def slot(self) -> str:
        """Return its stable name among the services of all machines."""
        return f"{socket.gethostname()}-{self.name}"


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """What `petstream status` shows of one service."""

    name: str
    role: str
    level: int | None
    pid: int | None
    state: ProcessState
    restarts: int
    log: str


@dataclass(slots=True)
class _Service:
    spec: ServiceSpec
    health_path: Path
    log_path: Path
    process: subprocess.Popen[bytes] | None = None
    started_s: float = 0.0
    restarts: int = 0
    backoff_s: float = FIRST_BACKOFF_S
    restart_at_s: float | None = None


@dataclass(slots=True)
class Supervisor:
    """Owns the processes of one `petstream up` or `petstream demo`."""

    specs: Sequence[ServiceSpec]
    state_dir: Path
    environment: Mapping[str, str]
    command: tuple[str, ...] = (sys.executable, "-m", "petstream")
    """What each service's arguments are given to."""
    _services: list[_Service] = field(init=False, default_factory=list)

    def start(self) -> None:
        """Start every service."""
        (self.state_dir / "logs").mkdir(parents=True, exist_ok=True)
        (self.state_dir / "health").mkdir(parents=True, exist_ok=True)
        for spec in self.specs:
            service = _Service(
                spec,
                health_path=self.state_dir / "health" / f"{spec.name}.json",
                log_path=self.state_dir / "logs" / f"{spec.name}.log",
            )
            self._services.append(service)
            self._spawn(service)

    def tend(self) -> list[str]:
        """Start again what crashed, if its pause is over. Call it a few times a second.

        Returns:
            Names of the services that were found dead by this call.
        """
        now_s = time.monotonic()
        found_dead: list[str] = []
        for service in self._services:
            if service.restart_at_s is not None:
                if now_s >= service.restart_at_s:
                    self._spawn(service)
            elif service.process is not None and service.process.poll() is not None:
                found_dead.append(service.spec.name)
                if now_s - service.started_s >= SETTLED_AFTER_S:
                    service.backoff_s = FIRST_BACKOFF_S
                service.restart_at_s = now_s + service.backoff_s
                service.backoff_s = min(2 * service.backoff_s, LONGEST_BACKOFF_S)
                service.restarts += 1
        return found_dead

    def wait_until_ready(
        self,
        limit_s: float,
        *,
        stop: threading.Event | None = None,
        on_turn: Callable[[], None] = lambda: None,
    ) -> bool:
        """Wait until every service said that it is ready, tending them meanwhile.

        Args:
            limit_s: How long to wait.
            stop: Ends the wait; nothing is started again once it is set.
            on_turn: Called several times a second.

        Returns:
            Whether all are ready; False if `stop` was set before.

        Raises:
            ServiceNotReadyError: If `limit_s` passed or a service crashed three times.
        """
        stop = stop or threading.Event()
        limit = time.monotonic() + limit_s
        while not stop.is_set():
            self.tend()
            on_turn()
            waiting = [s for s in self._services if self._state(s) != "ready"]
            if not waiting:
                return True
            crashed = [s for s in waiting if s.restarts >= 3]
            if crashed or time.monotonic() > limit:
                service = (crashed or waiting)[0]
                raise ServiceNotReadyError(
                    f"{service.spec.name} did not get ready: {_last_line(service.log_path)} "
                    f"(log: {service.log_path})"
                )
            stop.wait(0.05)
        return False

    def stop(self, limit_s: float = 30.0) -> None:
        """Stop every service: SIGTERM, then SIGKILL for what is left after `limit_s`."""
        running = [s.process for s in self._services if s.process is not None]
        for process in running:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        limit = time.monotonic() + limit_s
        for process in running:
            try:
                process.wait(max(0.0, limit - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for service in self._services:
            service.health_path.unlink(missing_ok=True)

    def statuses(self) -> list[ProcessStatus]:
        """Return the present state of every service."""
        return [
            ProcessStatus(
                name=service.spec.name,
                role=service.spec.role,
                level=service.spec.level,
                pid=service.process.pid if service.process else None,
                state=self._state(service),
                restarts=service.restarts,
                log=str(service.log_path),
            )
            for service in self._services
        ]

    def _state(self, service: _Service) -> ProcessState:
        if service.restart_at_s is not None:
            return "restarting"
        if service.process is None or service.process.poll() is not None:
            return "stopped"
        health = read_health(service.health_path)
        if health is None or health.pid != service.process.pid or health.state == "starting":
            return "starting"
        return "ready" if health.is_ready else "stalled"

    def _spawn(self, service: _Service) -> None:
        service.health_path.unlink(missing_ok=True)
        with service.log_path.open("ab") as log:
            service.process = subprocess.Popen(
                [
                    *(*self.command, *service.spec.arguments),
                    *("--slot", service.spec.slot),
                    *("--health-file", str(service.health_path)),
                    *("--supervisor-pid", str(os.getpid())),
                ],
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,  # Ctrl-C reaches the supervisor, which stops them in order
            )
        service.started_s = time.monotonic()
        service.restart_at_s = None


def _last_line(log_path: Path) -> str:
    lines = [line for line in log_path.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it wrote no log"
