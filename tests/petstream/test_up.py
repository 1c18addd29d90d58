"""`petstream up` while it starts and when it is broken off, and beside `petstream broker`."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from petstream import services_file
from petstream.deployment import Shape, supervisor_for
from petstream.services_file import AlreadyUpError, RunningServices
from petstream.settings import Settings

EXAMPLES = Path(__file__).parents[2] / "examples" / "tasks"
LIMIT_S = 400.0


class Machine:
    """One user's machine: the command line with folders of its own, and no broker named."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.state_dir = folder / "state"
        self.folder = folder
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("PETSTREAM_") and name != "KAFKA_BOOTSTRAP_SERVERS"
        } | {
            "PETSTREAM_STATE_DIR": str(self.state_dir),
            "PETSTREAM_TASKS_DIR": str(folder / "tasks"),
            **environment,
        }

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command in a process group of its own, as a shell does."""
        return subprocess.Popen(
            [sys.executable, "-m", "petstream", *arguments],
            env=self.environment,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        process = self.start(*arguments)
        out, error = process.communicate(timeout=LIMIT_S)
        return subprocess.CompletedProcess(arguments, process.returncode, out, error)

    def document(self, *arguments: str) -> dict[str, Any]:
        """Return what a command with --json prints."""
        ended = self.run(*arguments, "--json")
        assert ended.returncode == 0, ended.stderr
        document: dict[str, Any] = json.loads(ended.stdout)
        return document

    def services(self) -> RunningServices | None:
        """Return what `up` says of itself."""
        return services_file.read(self.state_dir)


def wait_for(condition: Callable[[], bool]) -> None:
    """Poll until something is so."""
    limit_s = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < limit_s, "the condition did not become true in time"
        time.sleep(0.02)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A machine on which nothing runs after the test."""
    machine = Machine(tmp_path)
    yield machine
    if machine.services() is not None:
        machine.run("down")
    machine.run("broker", "stop")


def say_starting(state_dir: Path) -> RunningServices:
    """Write what an `up` in this process would write first."""
    own = psutil.Process()
    said = RunningServices(
        supervisor_pid=own.pid,
        supervisor_started_s=own.create_time(),
        state="starting",
        bootstrap_servers="",
        namespace="petstream",
        delivery="exactly_once",
        embedded_broker=False,
        processes=(),
    )
    services_file.write(state_dir, said)
    return said


def test_a_state_folder_has_one_up(tmp_path: Path) -> None:
    """From before anything is started until everything is stopped; what it said goes with it."""
    with services_file.held(tmp_path):
        with pytest.raises(AlreadyUpError, match="petstream down"), services_file.held(tmp_path):
            pass
        said = say_starting(tmp_path)
        assert services_file.read(tmp_path) == said
        assert not said.is_ready

    assert services_file.read(tmp_path) is None
    with services_file.held(tmp_path):
        pass


def test_an_up_that_starts_is_seen_and_refuses_another(tmp_path: Path) -> None:
    """`status` shows it although nothing is ready."""
    machine = Machine(tmp_path)
    with services_file.held(machine.state_dir):
        unseen = machine.run("up")
        say_starting(machine.state_dir)
        second = machine.run("up", "--detach")
        status = machine.document("status")

    assert (unseen.returncode, second.returncode) == (1, 1)
    assert "petstream down" in unseen.stderr
    assert "petstream down" in second.stderr
    assert (status["state"], status["processes"]) == ("starting", [])


def test_down_without_up_says_what_to_do(tmp_path: Path) -> None:
    """Both of what may be meant."""
    ended = Machine(tmp_path).run("down")

    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert "petstream up" in ended.stderr
    assert "petstream broker stop" in ended.stderr


def test_services_keep_this_machines_profiles_wherever_they_log(tmp_path: Path) -> None:
    """The demo's services log to a folder of their own and still plan by what was measured."""
    settings = Settings(state_dir=tmp_path / "of-the-user")

    supervisor = supervisor_for(settings, Shape(), tmp_path / "of-the-demo")

    assert supervisor.state_dir == tmp_path / "of-the-demo"
    assert supervisor.environment["PETSTREAM_STATE_DIR"] == str(tmp_path / "of-the-user")


@pytest.mark.kafka
@pytest.mark.slow
def test_ctrl_c_while_it_starts_stops_it_and_starts_nothing_again(
    tmp_path: Path, broker: str, namespace: str
) -> None:
    """The signal goes to the whole group, as a terminal sends it."""
    machine = Machine(tmp_path, KAFKA_BOOTSTRAP_SERVERS=broker, PETSTREAM_NAMESPACE=namespace)
    process = machine.start("up")
    wait_for(lambda: (said := machine.services()) is not None and len(said.processes) == 3)
    said = machine.services()
    assert said is not None
    assert (said.state, said.bootstrap_servers) == ("starting", broker)

    os.killpg(process.pid, signal.SIGINT)
    out, error = process.communicate(timeout=LIMIT_S)

    assert process.returncode == 0, error
    assert "died" not in out + error
    assert machine.services() is None
    assert not [p for p in said.processes if p.pid is not None and psutil.pid_exists(p.pid)]


@pytest.mark.kafka
@pytest.mark.slow
def test_ctrl_c_during_detach_leaves_nothing(tmp_path: Path, broker: str, namespace: str) -> None:
    """The process that was to stay is ended, too."""
    machine = Machine(tmp_path, KAFKA_BOOTSTRAP_SERVERS=broker, PETSTREAM_NAMESPACE=namespace)
    process = machine.start("up", "--detach")
    wait_for(lambda: (said := machine.services()) is not None and bool(said.processes))
    said = machine.services()
    assert said is not None

    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=LIMIT_S)

    assert process.returncode == 1
    assert "nothing is up" in error
    assert not psutil.pid_exists(said.supervisor_pid)
    assert machine.services() is None


@pytest.mark.kafka
@pytest.mark.slow
def test_the_commands_of_the_readme_in_their_order(machine: Machine) -> None:
    """No address is given anywhere: every command finds the broker of `up`."""
    up = machine.run("up", "--detach")
    assert up.returncode == 0, up.stderr
    added = machine.run("tasks", "add", str(EXAMPLES / "sms_spam"))
    assert added.returncode == 0, added.stderr
    asked = machine.run("query", "--task", "sms_spam", "WINNER! Claim your prize, call now")
    assert asked.returncode == 0, asked.stderr
    broker = machine.document("broker", "status")
    assert broker["bootstrap_servers"] == machine.document("status")["bootstrap_servers"]
    assert machine.run("topics", "verify").returncode == 0
    for command in (("broker", "stop"), ("broker", "start", "--detach")):
        refused = machine.run(*command)
        assert refused.returncode == 1
        assert "petstream down" in refused.stderr

    down = machine.run("down")

    assert down.returncode == 0, down.stderr
    assert machine.run("broker", "status").returncode == 1


@pytest.mark.kafka
@pytest.mark.slow
def test_up_uses_the_broker_that_runs_and_leaves_it(machine: Machine) -> None:
    """Both keep their data in the same folder, so there can be only one."""
    started = machine.document("broker", "start", "--detach")
    up = machine.run("up", "--detach")
    assert up.returncode == 0, up.stderr
    assert machine.document("status")["bootstrap_servers"] == started["bootstrap_servers"]

    down = machine.run("down")

    assert down.returncode == 0, down.stderr
    assert machine.document("broker", "status")["pid"] == started["pid"]
    assert machine.run("broker", "stop").returncode == 0
