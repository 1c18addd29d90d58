"""The broker's Java process: started, watched, stopped, killed."""

import contextlib
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil

_LAUNCHER = Path(__file__).with_name("launcher.py")
STOP_GRACE_S = 20.0
"""A busy broker flushes its logs on SIGTERM; after this time it is killed."""


class JavaProcess:
    """A running Java process and, unless it is detached, the launcher that ties it to us.

    Invariant: the process is identified by id and start time, so a reused id is never signalled.
    """

    def __init__(self, process: psutil.Process, launcher: subprocess.Popen[bytes] | None) -> None:
        self._process = process
        self._launcher = launcher

    @classmethod
    def start(
        cls, command: Sequence[str | Path], log_path: Path, *, lock: int, detach: bool
    ) -> "JavaProcess":
        """Start a Java program.

        Args:
            command: The program and its arguments.
            log_path: Gets its standard output and error, appended.
            lock: A descriptor that the process inherits; it never reads it.
            detach: Let it outlive this process; else it ends with it.
        """
        mode = "detach" if detach else "lifeline"
        arguments = [sys.executable, "-I", "-S", _LAUNCHER, mode, str(STOP_GRACE_S), *command]
        with log_path.open("ab") as log:
            launcher = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL if detach else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                pass_fds=[lock],
                start_new_session=True,  # Ctrl-C reaches the owner, who stops the broker in order
            )
        assert launcher.stdout is not None
        with launcher.stdout as answer:
            pid = answer.readline()
        if not pid.strip():
            launcher.wait()
            raise OSError(f"cannot start {command[0]}")
        if detach:
            launcher.wait()
        process = cls._find(int(pid))
        return cls(process, None if detach else launcher)

    @classmethod
    def adopt(cls, pid: int, started_s: float) -> "JavaProcess | None":
        """Return the detached process of that id and start time, if it still runs."""
        try:
            process = psutil.Process(pid)
        except psutil.NoSuchProcess:
            return None
        if abs(process.create_time() - started_s) > 1.0:
            return None
        adopted = cls(process, None)
        return adopted if adopted.is_running() else None

    @staticmethod
    def _find(pid: int) -> psutil.Process:
        try:
            return psutil.Process(pid)
        except psutil.NoSuchProcess:
            raise OSError(f"process {pid} ended at once") from None

    @property
    def pid(self) -> int:
        """Id of the Java process."""
        return int(self._process.pid)

    @property
    def started_s(self) -> float:
        """Start time, seconds since the epoch."""
        return float(self._process.create_time())

    def is_running(self) -> bool:
        """Tell whether the process lives."""
        if self._launcher is not None:
            if self._launcher.poll() is None:
                return True
            self._release_lifeline(self._launcher)
            return False
        try:
            return (
                bool(self._process.is_running()) and self._process.status() != psutil.STATUS_ZOMBIE
            )
        except psutil.NoSuchProcess:
            return False

    def exit_status(self) -> int | None:
        """Return the exit status (128 + n for signal n); None while running or if detached."""
        return None if self._launcher is None else self._launcher.poll()

    def stop(self) -> None:
        """End the process with SIGTERM, after the grace period with SIGKILL, and wait for it."""
        self._signal(signal.SIGTERM)
        if not self._ended_within(STOP_GRACE_S):
            self.kill()

    def kill(self) -> None:
        """End the process with SIGKILL and wait until it is gone."""
        self._signal(signal.SIGKILL)
        self._ended_within(STOP_GRACE_S)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            self._process.send_signal(number)

    def _ended_within(self, timeout_s: float) -> bool:
        try:
            self._process.wait(timeout_s)
        except psutil.TimeoutExpired:
            return False
        except psutil.NoSuchProcess:
            pass
        if self._launcher is not None:
            self._launcher.wait()
            self._release_lifeline(self._launcher)
        return True

    @staticmethod
    def _release_lifeline(launcher: subprocess.Popen[bytes]) -> None:
        if launcher.stdin is not None:
            launcher.stdin.close()
