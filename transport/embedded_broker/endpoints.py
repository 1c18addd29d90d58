"""The two ports of a broker, kept with its data so that a restart has the same address."""

import json
from pathlib import Path
from typing import NamedTuple

from transport.embedded_broker.ports import free_port, is_free

_FILE_NAME = "ports.json"


class Endpoints(NamedTuple):
    """Ports of one node on the loopback address."""

    port: int
    controller_port: int

    @classmethod
    def choose(cls, data_dir: Path, wanted_port: int | None) -> "Endpoints":
        """Take the wanted port or the one of the last run, else a free one.

        A wanted port is taken as it is, free or not; the others are free now.
        """
        last = cls._last(data_dir)
        port = wanted_port
        if port is None:
            port = last.port if last is not None and is_free(last.port) else free_port()
        if last is not None and last.controller_port != port and is_free(last.controller_port):
            return cls(port, last.controller_port)
        return cls(port, free_port(avoid=port))

    def save(self, data_dir: Path) -> None:
        """Keep the ports for the next run on this folder."""
        (data_dir / _FILE_NAME).write_text(json.dumps(self._asdict()))

    @classmethod
    def _last(cls, data_dir: Path) -> "Endpoints | None":
        try:
            return cls(**json.loads((data_dir / _FILE_NAME).read_text()))
        except (OSError, ValueError, TypeError):  # absent, cut off or edited: choose anew
            return None
