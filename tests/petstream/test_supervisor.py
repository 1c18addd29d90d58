"""The supervisor against real processes."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from petstream.supervisor import ServiceNotReadyError, ServiceSpec, Supervisor

SERVICE = """
import json, os, pathlib, sys, time
arguments = sys.argv[1:]
health = pathlib.Path(arguments[arguments.index("--health-file") + 1])
if "broken" in arguments:
    sys.exit("the model folder is missing")
partial = health.with_suffix(".partial")
partial.write_text(json.dumps({"pid": os.getpid(), "state": "ready"}))
partial.replace(health)
time.sleep(600)
"""


def make_supervisor(folder: Path, *arguments: str) -> Supervisor:
    script = folder / "service.py"
    script.write_text(SERVICE)
    specs = [
        ServiceSpec("worker-0-0", "worker", 0, arguments),
        ServiceSpec("scheduler-0", "scheduler", None, ()),
    ]
    return Supervisor(specs, folder / "state", os.environ, (sys.executable, str(script)))


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    supervisor = make_supervisor(tmp_path)
    supervisor.start()
    yield supervisor
    supervisor.stop(30)


def wait_for(condition: Callable[[], bool], limit_s: float = 120) -> None:
    limit = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < limit, "the condition did not become true in time"
        time.sleep(0.02)


def test_services_get_ready(supervisor: Supervisor) -> None:
    """Every service that says so is ready, with its own pid."""
    supervisor.wait_until_ready(120)

    statuses = supervisor.statuses()

    assert [status.state for status in statuses] == ["ready", "ready"]
    assert len({status.pid for status in statuses}) == 2


def test_a_killed_service_is_started_again(supervisor: Supervisor) -> None:
    """SIGKILL of one service gives a new process of that name, and touches no other."""
    supervisor.wait_until_ready(120)
    first, other = supervisor.statuses()
    assert first.pid is not None

    os.kill(first.pid, signal.SIGKILL)

    wait_for(lambda: supervisor.tend() == ["worker-0-0"])
    supervisor.wait_until_ready(120)
    again, other_again = supervisor.statuses()
    assert again.pid != first.pid
    assert again.restarts == 1
    assert other_again == other


def test_a_service_that_never_gets_ready_is_named_with_its_last_words(tmp_path: Path) -> None:
    """The error says which service, what it said last, and where its log is."""
    supervisor = make_supervisor(tmp_path, "broken")
    supervisor.start()
    try:
        with pytest.raises(
            ServiceNotReadyError, match=r"worker-0-0 .*model folder is missing.*log"
        ):
            supervisor.wait_until_ready(120)
    finally:
        supervisor.stop(30)


def test_a_wait_that_is_stopped_starts_nothing_again(tmp_path: Path) -> None:
    """As when Ctrl-C ends the services before they were ready."""
    supervisor = make_supervisor(tmp_path, "broken")
    stop = threading.Event()
    turns: list[list[str]] = []

    def after_the_first_crash() -> None:
        turns.append([status.state for status in supervisor.statuses()])
        if "restarting" in turns[-1]:
            stop.set()

    supervisor.start()
    try:
        is_ready = supervisor.wait_until_ready(120, stop=stop, on_turn=after_the_first_crash)

        assert not is_ready
        assert supervisor.statuses()[0].restarts == 1
        assert supervisor.statuses()[0].state == "restarting"
    finally:
        supervisor.stop(30)


def test_ctrl_c_in_the_terminal_does_not_reach_the_services(supervisor: Supervisor) -> None:
    """They are in groups of their own; the supervisor stops them."""
    for status in supervisor.statuses():
        assert status.pid is not None
        assert os.getpgid(status.pid) != os.getpgrp()


def test_stop_leaves_no_process(tmp_path: Path) -> None:
    """After stop every process has ended."""
    supervisor = make_supervisor(tmp_path)
    supervisor.start()
    supervisor.wait_until_ready(120)
    pids = [status.pid for status in supervisor.statuses()]

    supervisor.stop(30)

    for pid in pids:
        assert pid is not None
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
