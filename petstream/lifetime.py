"""How long a service process lives: until a signal, or until its supervisor is gone."""

import os
import signal
import threading
from types import FrameType

ORPHAN_CHECK_S = 1.0


def stop_event() -> threading.Event:
    """Return an event that SIGTERM and SIGINT set; a second signal ends the process at once."""
    stop = threading.Event()

    def on_signal(number: int, _frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    return stop


def stop_when_orphaned(stop: threading.Event, supervisor_pid: int) -> None:
    """Set `stop` once the supervisor is no longer this process's parent.

    A supervisor that was killed with SIGKILL cannot stop its services; they stop themselves, so
    that the next `petstream up` does not meet them.
    """

    def watch() -> None:
        while not stop.wait(ORPHAN_CHECK_S):
            if os.getppid() != supervisor_pid:
                stop.set()

    threading.Thread(target=watch, name="orphan-watch", daemon=True).start()
