"""`compose.yaml` as read: the hardening keys of every service, the order of the start, volumes.

Whether it runs is shown by `deploy/check_compose.py` on a real engine.
"""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from transport.embedded_broker.jars import KAFKA_VERSION
from transport.embedded_broker.server_config import server_properties

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
GPU: dict[str, Any] = yaml.safe_load((ROOT / "compose.gpu.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]

LONG_RUNNING = {"broker", "scheduler", "worker-small", "worker-large"}
ONE_SHOT = {"topics", "models", "tasks", "demo"}
WITH_TORCH = {"models", "tasks", "worker-small", "worker-large"}

# Where the two brokers must differ: names, places, listeners.
OF_THE_PLACE = {
    "process.roles",
    "node.id",
    "listeners",
    "advertised.listeners",
    "controller.listener.names",
    "inter.broker.listener.name",
    "listener.security.protocol.map",
    "controller.quorum.bootstrap.servers",
    "log.dirs",
}


def _every_service(test: Any) -> Any:  # noqa: ANN401 - pytest's decorators are untyped here
    return pytest.mark.parametrize("name", sorted(SERVICES))(test)


def test_services_are_the_documented_ones() -> None:
    """Whoever adds a service must say here of which kind it is."""
    assert set(SERVICES) == LONG_RUNNING | ONE_SHOT


@_every_service
def test_service_is_not_root(name: str) -> None:
    """A numeric user and group, neither of them 0."""
    user, _, group = SERVICES[name]["user"].partition(":")

    assert int(user) >= 1000
    assert int(group) >= 1000


@_every_service
def test_service_cannot_write_or_gain_rights(name: str) -> None:
    """Root file system read-only, no capability, no set-uid programs, bounded processes."""
    service = SERVICES[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert 0 < service["pids_limit"] <= 512
    for key in ("privileged", "cap_add", "network_mode", "pid", "ipc", "devices", "userns_mode"):
        assert key not in service
    assert all("size=" in mount for mount in service["tmpfs"])


@_every_service
def test_volumes_are_named_or_read_only(name: str) -> None:
    """Nothing of the host is mounted for writing, and the engine's socket not at all."""
    for volume in SERVICES[name].get("volumes", []):
        source, target, *mode = volume.split(":")
        assert "docker.sock" not in volume
        assert target.startswith("/")
        if source.startswith((".", "/")):
            assert mode == ["ro"]
            assert (ROOT / source).is_dir()
        else:
            assert source in COMPOSE["volumes"]


@_every_service
def test_dependencies_wait_for_health_or_success(name: str) -> None:
    """A service waits until what runs is healthy and until what runs once is done."""
    conditions = SERVICES[name].get("depends_on", {})

    for other, how in conditions.items():
        wanted = "service_healthy" if other in LONG_RUNNING else "service_completed_successfully"
        assert how == {"condition": wanted}, f"{name} on {other}"
        assert wanted != "service_healthy" or "healthcheck" in SERVICES[other]


def test_long_running_services_come_back_and_one_shots_do_not() -> None:
    """A crash is not the end of a service; a finished job is not started again."""
    assert {
        name for name, s in SERVICES.items() if s["restart"] == "unless-stopped"
    } == LONG_RUNNING
    assert {name for name, s in SERVICES.items() if s["restart"] == "no"} == ONE_SHOT
    assert all(SERVICES[name]["stop_grace_period"] == "60s" for name in LONG_RUNNING)


def test_demo_waits_for_everything() -> None:
    """All other services stand before it, directly or through another."""
    reached, waiting = set[str](), ["demo"]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += SERVICES[name].get("depends_on", {})

    assert reached == set(SERVICES)


def test_volumes_are_written_by_one_service_each() -> None:
    """Weights and tasks are read-only where they are served from."""
    writers: dict[str, list[str]] = {volume: [] for volume in COMPOSE["volumes"]}
    for name, service in SERVICES.items():
        for volume in service.get("volumes", []):
            source, _, *mode = volume.split(":")
            if source in writers and mode != ["ro"]:
                writers[source].append(name)

    assert writers == {"kafka": ["broker"], "models": ["models"], "tasks": ["tasks"]}


def test_broker_is_the_official_one_at_the_embedded_version() -> None:
    """Both ways of running PetStream meet the same Kafka."""
    assert SERVICES["broker"]["image"] == f"apache/kafka:{KAFKA_VERSION}"


def test_broker_has_the_embedded_brokers_settings() -> None:
    """What recovery and the first commit rest on is the same in both."""
    environment = SERVICES["broker"]["environment"]
    compose = {
        name.removeprefix("KAFKA_").lower().replace("_", "."): str(value)
        for name, value in environment.items()
    }
    embedded = server_properties(Path("/data"), 1, 2)

    shared = set(embedded) - OF_THE_PLACE
    assert len(shared) > 15
    assert {key: compose.get(key) for key in shared} == {key: embedded[key] for key in shared}


def test_ports_are_open_to_this_machine_only() -> None:
    """The one published port is bound to the loopback address; advertised is what is published."""
    published = {name: s["ports"] for name, s in SERVICES.items() if "ports" in s}

    assert published == {"broker": ["127.0.0.1:${PETSTREAM_KAFKA_PORT:-29092}:29092"]}
    advertised = SERVICES["broker"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    assert "OUTSIDE://localhost:${PETSTREAM_KAFKA_PORT:-29092}" in advertised


def test_workers_can_be_scaled() -> None:
    """Nothing of a service but the broker is there only once: no fixed name, host name or port."""
    for name in LONG_RUNNING - {"broker"}:
        assert {"container_name", "hostname", "ports"}.isdisjoint(SERVICES[name])


def test_each_service_has_the_smallest_image_that_does() -> None:
    """Torch is only where it is used."""
    targets = {n: s["build"]["target"] for n, s in SERVICES.items() if "build" in s}

    assert {name for name, target in targets.items() if target == "worker"} == WITH_TORCH
    assert {name for name, target in targets.items() if target == "base"} == (
        set(SERVICES) - WITH_TORCH - {"broker"}
    )
    images = {(SERVICES[name]["image"], target) for name, target in targets.items()}
    assert images == {("petstream:local", "base"), ("petstream-worker:local", "worker")}


def test_health_checks_read_the_file_that_the_service_writes() -> None:
    """The path of the command and the path of the check are one."""
    for name in LONG_RUNNING - {"broker"}:
        command, check = SERVICES[name]["command"], SERVICES[name]["healthcheck"]["test"]
        path = command[command.index("--health-file") + 1]
        assert check[-1] == path
        assert any(mount.startswith(f"{Path(path).parent}:") for mount in SERVICES[name]["tmpfs"])


def test_gpu_file_changes_only_the_workers() -> None:
    """It gives both levels a device and the image with CuPy, and loosens nothing."""
    assert set(GPU) == {"x-gpu", "services"}
    assert set(GPU["services"]) == {"worker-small", "worker-large"}
    for service in GPU["services"].values():
        assert set(service) == {"image", "build", "environment", "deploy"}
        assert service["environment"] == {"PETSTREAM_DEVICE": "cuda"}
        assert service["build"] == {"target": "worker-gpu"}
        (device,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert device["capabilities"] == ["gpu"]


def test_documented_variables_are_those_that_are_read() -> None:
    """docs/compose.md has a row for each variable, with the same default."""
    text = (ROOT / "compose.yaml").read_text()
    used = set(re.findall(r"\$\{(\w+):-([^}]*)\}", text))
    rows = re.findall(
        r"^\| `([A-Z_]+)` \| (?:`([^`]*)`|empty) \|",
        (ROOT / "docs/compose.md").read_text(),
        re.MULTILINE,
    )

    assert set(rows) == used
