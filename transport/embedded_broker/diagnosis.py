"""Turns the end of a broker's process into the typed error that names its cause."""

from pathlib import Path

from transport.embedded_broker.errors import BrokerFailedError, PortTakenError
from transport.embedded_broker.log_file import tail, telling_line


def explain_end(
    log_path: Path, log_start: int, *, port: int, exit_status: int | None
) -> BrokerFailedError:
    """Return the error of a broker that ended without being asked to.

    Args:
        log_path: The broker's log.
        log_start: Size of the log before this start, bytes; older lines are not to blame.
        port: The clients' port.
        exit_status: Of the process, where known.
    """
    lines = tail(log_path, start=log_start)
    line = telling_line(lines)
    if any("Address already in use" in said for said in lines):
        return PortTakenError(port, log_path, line)
    status = "" if exit_status is None else f" with status {exit_status}"
    return BrokerFailedError(f"the broker ended unasked{status}", log_path, line)
