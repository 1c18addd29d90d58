"""`petstream broker` as a user runs it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from confluent_kafka.admin import AdminClient

from transport.embedded_broker.running import find_running

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment with a state folder of its own."""
    return os.environ | {"PETSTREAM_STATE_DIR": str(tmp_path / "state")}


@pytest.fixture
def run(environment: dict[str, str], tmp_path: Path) -> Iterator[Run]:
    """Run `petstream broker ...`; a broker that is left over is stopped."""

    def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "petstream", "broker", *arguments]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=120, check=False
        )

    yield run_command
    left = find_running(tmp_path / "state")
    process = None if left is None else left.process()
    if process is not None:
        process.kill()


@pytest.mark.kafka
@pytest.mark.slow
def test_detached_broker_outlives_its_command_until_stop(run: Run, tmp_path: Path) -> None:
    """start, status and stop find the same broker; start again and stop again are refused."""
    started = run("start", "--detach", "--json")
    assert started.returncode == 0, started.stderr
    told = json.loads(started.stdout)
    process = psutil.Process(told["pid"])

    status = run("status", "--json")
    again = run("start")
    stopped = run("stop")
    stopped_again = run("stop")

    assert told["version"] == "4.4.0"
    assert told["name"] == "Apache Kafka"
    assert told["data_dir"] == str(tmp_path / "state" / "broker")
    assert Path(told["log_path"]).is_file()
    answer = json.loads(status.stdout)
    assert answer == told | {"cluster_id": answer["cluster_id"]}
    assert again.returncode == 1
    assert told["bootstrap_servers"] in again.stderr
    assert stopped.returncode == 0
    assert not process.is_running()
    assert stopped_again.returncode == 1
    assert stopped_again.stderr == (
        "petstream: no broker runs; start one with `petstream broker start`\n"
    )
    assert run("status").returncode == 1


@pytest.mark.kafka
@pytest.mark.slow
def test_foreground_broker_serves_until_interrupted(
    run: Run, environment: dict[str, str], tmp_path: Path
) -> None:
    """Ctrl-C stops broker and command in order, exit status 0."""
    data_dir = tmp_path / "data"
    command = [sys.executable, "-m", "petstream", "broker", "start", "--data-dir", str(data_dir)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        address = line.split(" at ")[1].split(",")[0]
        assert AdminClient({"bootstrap.servers": address}).list_topics(timeout=30).brokers
        assert run("status").returncode == 0

        process.send_signal(signal.SIGINT)

        assert process.wait(60) == 0
    assert (data_dir / "topics" / ".kafka_cleanshutdown").exists()
    assert run("status").returncode == 1


@pytest.mark.kafka
@pytest.mark.slow
def test_foreground_broker_that_dies_ends_the_command_with_its_log(
    run: Run, environment: dict[str, str]
) -> None:
    """A crash is exit status 1 and one line that names the log."""
    command = [sys.executable, "-m", "petstream", "broker", "start", "--json"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        text = ""
        while not text.rstrip().endswith("}"):
            text += process.stdout.readline()
        told = json.loads(text)

        os.kill(told["pid"], signal.SIGKILL)

        assert process.wait(60) == 1
        errors = process.stderr.read()
    assert errors.startswith("petstream: the broker ended unasked with status 137; log ")
    assert told["log_path"] in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize("arguments", [["start", "--port", "0"], ["start", "--java", "x"], ["x"]])
def test_wrong_use_is_exit_status_2(run: Run, arguments: list[str]) -> None:
    """Bad options do not start anything."""
    assert run(*arguments).returncode == 2


def test_data_dir_that_cannot_be_made_is_one_line(run: Run, tmp_path: Path) -> None:
    """No traceback where the folder is a file."""
    (tmp_path / "file").write_text("")

    failed = run("start", "--data-dir", str(tmp_path / "file"))

    assert failed.returncode == 1
    assert failed.stderr.count("\n") == 1
    assert "file" in failed.stderr


@pytest.mark.parametrize("command", ["start", "stop", "status"])
def test_help_has_an_example(run: Run, command: str) -> None:
    """Every command shows how it is called."""
    assert f"Example: petstream broker {command}" in run(command, "--help").stdout
