"""The health file of a service: its state, proved alive by the loop that owns the Kafka clients.

A supervisor or a container's health check reads it; nothing is asked over the network. The loop
writes it, so a stalled loop shows as a file that is not renewed.
"""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ServiceState = Literal["starting", "ready", "draining"]

RENEW_EVERY_S = 1.0
STALE_AFTER_S = 15.0


@dataclass(frozen=True, slots=True)
class Health:
    """What a service said last."""

    pid: int
    state: ServiceState
    age_s: float

    @property
    def is_ready(self) -> bool:
        """Whether the service serves and said so recently."""
        return self.state == "ready" and self.age_s < STALE_AFTER_S


class HealthFile:
    """Writes the state of this process to `path`; without a path it does nothing."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._state: ServiceState = "starting"
        self._written_s = float("-inf")
        self.report("starting")

    def report(self, state: ServiceState) -> None:
        """Say a new state at once."""
        self._state = state
        self._write()

    def turn(self) -> None:
        """Say that the loop turns, and so serves; writes once a second however often called."""
        if self._state != "ready" or time.monotonic() - self._written_s >= RENEW_EVERY_S:
            self.report("ready")

    def _write(self) -> None:
        if self._path is None:
            return
        self._written_s = time.monotonic()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps({"pid": os.getpid(), "state": self._state}))
        partial.replace(self._path)


def read_health(path: Path) -> Health | None:
    """Return what the service at `path` said last; None before it said anything."""
    try:
        age_s = time.time() - path.stat().st_mtime
        said = json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return Health(pid=int(said["pid"]), state=said["state"], age_s=age_s)
