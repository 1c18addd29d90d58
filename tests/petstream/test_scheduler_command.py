"""`petstream scheduler`: wrong use ends with 2 and a line that says what to do; SIGTERM drains."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from messages.topics import TopicNames
from petstream.commands import scheduler as command
from petstream.settings import Settings
from scheduler.cost_model import default_cost_model
from scheduler.planning import PlanLimits, PlanRows, plan
from scheduler.policies.catalogue import POLICIES
from scheduler.profile_file import Profile, write_profile
from transport.health import read_health
from transport.settings import KafkaSettings
from transport.topics import create_topics


@pytest.fixture(autouse=True)
def _no_broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No broker and no profile of the machine reach these tests."""
    monkeypatch.setenv("PETSTREAM_STATE_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in ("KAFKA_BOOTSTRAP_SERVERS", "PETSTREAM_BOOTSTRAP_SERVERS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--policy", "greedy"], "no policy 'greedy'; there are packed, coordinated, fixed"),
        (["--levels", "small"], "--levels takes numbers such as 0,1"),
        (["--levels", "0,-1"], "--levels takes numbers such as 0,1"),
        (["--profile", "nowhere.json"], "run `petstream profile`"),
        (["--batch-rows", "0"], "--batch-rows"),
        (["--window-ms", "-1"], "--window-ms"),
        ([], "--bootstrap-servers"),
    ],
)
def test_wrong_use_is_told(arguments: list[str], complaint: str) -> None:
    """Before anything is connected."""
    result = CliRunner().invoke(command.app, arguments)

    assert result.exit_code == 2
    assert complaint in result.stderr


def test_a_measured_profile_reaches_the_planner(tmp_path: Path) -> None:
    """What `petstream profile` wrote is the cost model, and `coordinated` plans otherwise by it."""
    costs_ms = ((0.0, 0.0), (0.0, 1000.0))
    without_launch = Profile(
        backbone="minilm-l3",
        device="a processor",
        dtype="float32",
        threads=1,
        versions={},
        commit="abc",
        measured_at="2026-01-01T00:00:00+00:00",
        repeats=1,
        num_rows=(1, 1001),
        seq_lens=(1, 1001),
        alpha_ms=costs_ms,
        beta_ms={"lora": costs_ms},
    )
    settings = Settings(state_dir=tmp_path)
    built_in = command.cost_models(settings, None)
    write_profile(without_launch, tmp_path / "profiles")
    measured = command.cost_models(settings, None)

    assert built_in == {}
    assert list(measured) == ["minilm-l3"]
    assert measured["minilm-l3"].alpha.at(501, 501) == pytest.approx(250.0)
    # A launch saved is worth padding the shorter rows; where a row alone costs nothing, it is not.
    rows = PlanRows(np.array([0] * 4 + [1] * 4), np.array([30] * 4 + [32] * 4), ("lora", "lora"))
    coordinated = POLICIES["coordinated"]
    by_default = plan(rows, default_cost_model(), coordinated, PlanLimits())
    by_measured = plan(rows, measured["minilm-l3"], coordinated, PlanLimits())
    assert [batch.row_indices.tolist() for batch in by_default] == [[0, 1, 2, 3, 4, 5, 6, 7]]
    assert [len(batch.row_indices) for batch in by_measured] == [1] * 8


@pytest.mark.kafka
def test_the_process_gets_ready_and_ends_well_on_sigterm(
    broker: str, namespace: str, tmp_path: Path
) -> None:
    """As the supervisor runs it: ready by its health file, gone with 0 when told to stop."""
    create_topics(KafkaSettings(bootstrap_servers=broker), TopicNames(namespace), partitions=2)
    health_file = tmp_path / "health.json"
    process = subprocess.Popen(
        [sys.executable, "-m", "petstream", "scheduler", "--health-file", str(health_file)],
        env=os.environ | {"KAFKA_BOOTSTRAP_SERVERS": broker, "PETSTREAM_NAMESPACE": namespace},
        stderr=subprocess.PIPE,
    )
    try:
        limit_s = time.monotonic() + 180
        while (health := read_health(health_file)) is None or not health.is_ready:
            assert process.poll() is None
            assert time.monotonic() < limit_s
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=180)
    finally:
        process.kill()

    assert process.returncode == 0
    assert b"Traceback" not in log
