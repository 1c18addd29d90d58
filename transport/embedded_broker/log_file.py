"""Reads the broker's log for the line that tells what went wrong."""

import re
from pathlib import Path

_TAIL_BYTES = 256 * 1024
_MAX_LINE = 400

# A log line of the broker, or a complaint of the Java runtime before logging works.
_ERROR = re.compile(
    r"^\S+ (ERROR|FATAL) |^Exception in thread|^Error: |^Error occurred|^\[?error\]?|^Unrecognized",
    re.IGNORECASE,
)
_CAUSE = re.compile(r"^(Caused by: )?([a-z]\w*\.)+[A-Z]\w*(Exception|Error)\b")


def tail(path: Path, *, start: int = 0) -> list[str]:
    """Return the lines of the log's last 256 KiB; none if there is no log.

    Args:
        path: The log.
        start: Leave out the bytes before this offset, unless the log was begun anew since.
    """
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            file.seek(max(0, size - _TAIL_BYTES, start if start <= size else 0))
            return file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return []


def telling_line(lines: list[str]) -> str:
    """Return the last error with its cause, or the last line that is not of a stack trace."""
    said = [line for line in lines if line.strip() and not line.startswith(("\t", "    at "))]
    errors = [index for index, line in enumerate(said) if _ERROR.match(line)]
    if not errors:
        return said[-1][:_MAX_LINE] if said else ""
    last = errors[-1]
    causes = [line for line in said[last + 1 :] if _CAUSE.match(line)]
    return " | ".join(line.strip() for line in [said[last], *causes[:1]])[:_MAX_LINE]


def logged_version(lines: list[str]) -> str | None:
    """Return the version that the running broker wrote at its last start."""
    for line in reversed(lines):
        found = re.search(r"Kafka version: (\d[\w.+-]*)", line)
        if found is not None:
            return found[1]
    return None
