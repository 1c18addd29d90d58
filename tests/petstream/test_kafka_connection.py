"""Which broker and namespace a command takes, when `petstream up` runs on this machine."""

import os
from pathlib import Path

import psutil
import pytest

from petstream import services_file
from petstream.kafka_connection import broker_settings, kafka_settings
from petstream.services_file import RunningServices
from petstream.settings import load_settings


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory, and a state folder of which this process pretends to be the `up`."""
    for name in os.environ:
        if name.startswith("PETSTREAM_") or name == "KAFKA_BOOTSTRAP_SERVERS":
            monkeypatch.delenv(name)
    monkeypatch.setenv("PETSTREAM_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    say_up(tmp_path / "state", bootstrap_servers="127.0.0.1:5")
    return tmp_path


def say_up(state_dir: Path, *, bootstrap_servers: str) -> None:
    """Write what a running `up` writes."""
    own = psutil.Process()
    services_file.write(
        state_dir,
        RunningServices(
            supervisor_pid=own.pid,
            supervisor_started_s=own.create_time(),
            state="serving",
            bootstrap_servers=bootstrap_servers,
            namespace="of-up",
            delivery="exactly_once",
            embedded_broker=True,
            processes=(),
        ),
    )


def test_without_a_word_it_is_what_up_serves(machine: Path) -> None:
    """Broker and namespace."""
    settings = broker_settings(None, None)

    assert (settings.bootstrap_servers, settings.namespace) == ("127.0.0.1:5", "of-up")


def test_a_namespace_that_was_set_is_kept(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a flag over the environment over the file, even where it is the default: a tenant's."""
    (machine / "petstream.toml").write_text('namespace = "petstream"\n')
    of_file = broker_settings(None, None)
    monkeypatch.setenv("PETSTREAM_NAMESPACE", "tenant")
    of_environment = broker_settings(None, None)
    of_flag = broker_settings(None, "flag")

    assert [of_file.namespace, of_environment.namespace, of_flag.namespace] == [
        "petstream",
        "tenant",
        "flag",
    ]
    assert {s.bootstrap_servers for s in (of_file, of_environment, of_flag)} == {"127.0.0.1:5"}


def test_a_broker_that_was_named_goes_with_its_own_namespace(machine: Path) -> None:
    """What runs here has no say."""
    settings = broker_settings("kafka:9092", None)

    assert (settings.bootstrap_servers, settings.namespace) == ("kafka:9092", "petstream")


def test_while_the_broker_of_up_starts_there_is_none(machine: Path) -> None:
    """Rather than an empty address."""
    say_up(machine / "state", bootstrap_servers="")

    assert broker_settings(None, None).bootstrap_servers is None


def test_the_group_protocol_is_a_setting(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Brokers older than 4.0 need the classic one; child processes get it, too."""
    default = broker_settings(None, None)
    (machine / "petstream.toml").write_text('group_protocol = "classic"\n')
    of_file = broker_settings(None, None)
    monkeypatch.setenv("PETSTREAM_GROUP_PROTOCOL", "consumer")
    of_environment = broker_settings(None, None)

    protocols = [kafka_settings(s).group_protocol for s in (default, of_file, of_environment)]
    assert protocols == ["consumer", "classic", "consumer"]
    assert of_file.environment()["PETSTREAM_GROUP_PROTOCOL"] == "classic"


def test_another_group_protocol_is_refused(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its name, as every bad setting."""
    monkeypatch.setenv("PETSTREAM_GROUP_PROTOCOL", "share")

    with pytest.raises(ValueError, match="group_protocol"):
        load_settings()
