"""Starts the Java process and sees to it that it never outlives its owner.

Run as a script, with the standard library alone:

    python -I -S launcher.py lifeline GRACE_S COMMAND...   stays beside the process
    python -I -S launcher.py detach   GRACE_S COMMAND...   starts it and leaves

Standard output gets one line, the process's id; the process's own output goes to standard error.

With a lifeline the launcher holds the read end of a pipe as standard input. The owner never
writes: the pipe ends when the owner closes it or dies, in whatever way, SIGKILL included. Then the
process gets SIGTERM and, after the grace period, SIGKILL. Should the launcher itself be killed,
Linux kills the process (PR_SET_PDEATHSIG). That flag alone would not do: it fires when the
*thread* that started the process ends, and the launcher has only one that starts anything.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    """Start the command of the arguments; see the module."""
    mode, grace_s, *command = arguments
    attached = mode == "lifeline"
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        close_fds=False,  # the owner's lock on the data folder goes on to the process
        # Before the exec and in a process of one thread, where preexec_fn is safe.
        preexec_fn=_die_with_parent if attached and sys.platform == "linux" else None,
    )
    sys.stdout.write(f"{process.pid}\n")
    sys.stdout.flush()
    if not attached:
        process.returncode = 0  # not ours to wait for any more
        return 0
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    threading.Thread(target=_follow_owner, args=(process, float(grace_s)), daemon=True).start()
    status = process.wait()
    return status if status >= 0 else 128 - status


def _follow_owner(process: subprocess.Popen[bytes], grace_s: float) -> None:
    # Not sys.stdin: a thread blocked in it holds a lock that the interpreter's end waits for.
    while os.read(0, 1):
        pass
    process.terminate()
    try:
        process.wait(grace_s)
    except subprocess.TimeoutExpired:
        process.kill()


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
