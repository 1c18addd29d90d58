"""Exit 0 if the service that writes a health file is ready: `python healthcheck.py FILE`.

A container's health check runs every few seconds, so it imports nothing but the file's reader.
"""

import sys
from pathlib import Path

from transport.health import read_health

if __name__ == "__main__":
    health = read_health(Path(sys.argv[1]))
    sys.stdout.write(
        "no health file" if health is None else f"{health.state}, {health.age_s:.1f} s"
    )
    raise SystemExit(0 if health is not None and health.is_ready else 1)
