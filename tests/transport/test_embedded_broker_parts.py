"""The embedded broker's parts that need no broker: log, settings, ports, versions, state file."""

import json
import os
import socket
import struct
import threading
from pathlib import Path

import psutil
import pytest

from transport.embedded_broker import java
from transport.embedded_broker.diagnosis import explain_end
from transport.embedded_broker.endpoints import Endpoints
from transport.embedded_broker.errors import BrokerFailedError, JavaNotFoundError, PortTakenError
from transport.embedded_broker.log_file import logged_version, tail, telling_line
from transport.embedded_broker.ports import HOST, free_port, is_free, is_listening
from transport.embedded_broker.process import JavaProcess
from transport.embedded_broker.running import RunningBroker, find_running, withdraw
from transport.embedded_broker.server_config import format_properties, server_properties
from transport.embedded_broker.version import UNKNOWN, ask_version, release_of

LOG = """\
2026-11-23T08:24:22,930 INFO  Registered signal handlers for TERM, INT, HUP (LoggingSignalHandler)
2026-11-23T08:24:23,204 ERROR [KafkaServer] Fatal error during startup (KafkaServer)
org.apache.kafka.common.KafkaException: Socket server failed to bind to 127.0.0.1:9092
\tat kafka.network.DataPlaneAcceptor.openServerSocket(SocketServer.scala:716)
Caused by: java.net.BindException: Address already in use
\t... 13 more
2026-11-23T08:24:23,437 INFO  shut down completed (KafkaServer)
"""


def test_telling_line_is_the_last_error_with_its_cause() -> None:
    """Later INFO lines and stack frames do not hide what went wrong."""
    line = telling_line(LOG.splitlines())

    assert line.startswith("2026-11-23T08:24:23,204 ERROR [KafkaServer] Fatal error during startup")
    assert line.endswith("Socket server failed to bind to 127.0.0.1:9092")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", ""),
        ("one\ntwo\n\n", "two"),
        ("Error: Could not find or load main class kafka.Kafka\nmore\n", "Error: Could not find"),
        (
            "Unrecognized VM option 'X'\nError: Could not create the Java Virtual Machine.\n",
            "Error",
        ),
    ],
)
def test_telling_line_of_other_ends(text: str, told: str) -> None:
    """Java's own complaints count as errors; without any, it is the last line."""
    assert telling_line(text.splitlines()).startswith(told)
    assert bool(telling_line(text.splitlines())) == bool(told)


def test_errors_of_an_earlier_start_are_not_blamed(tmp_path: Path) -> None:
    """Only what was logged since this start explains its end."""
    log = tmp_path / "broker.log"
    log.write_text(LOG)
    log_start = log.stat().st_size
    with log.open("a") as file:
        file.write("2026-11-23T09:00:00,000 INFO  new start (Kafka)\n")

    now = explain_end(log, log_start, port=9092, exit_status=1)
    then = explain_end(log, 0, port=9092, exit_status=1)

    assert type(now) is BrokerFailedError
    assert now.last_line.endswith("new start (Kafka)")
    assert "status 1" in str(now)
    assert isinstance(then, PortTakenError)
    assert then.port == 9092


def test_tail_survives_absence_rollover_and_bad_bytes(tmp_path: Path) -> None:
    """A log that is missing, shorter than before or not UTF-8 is still an answer."""
    log = tmp_path / "broker.log"

    assert tail(log) == []
    log.write_bytes(b"ab\xff\n" + b"x" * 400_000 + b"\nend\n")
    assert tail(log)[-1] == "end"
    assert sum(map(len, tail(log))) <= 256 * 1024
    assert tail(log, start=10**9)[-1] == "end"


def test_version_is_the_last_that_was_logged() -> None:
    """A log that spans an upgrade tells the running version."""
    lines = [
        "x Kafka version: 4.3.1 (AppInfoParser)",
        "y Kafka version: 4.4.0 (AppInfoParser)",
        "z",
    ]

    assert logged_version(lines) == "4.4.0"
    assert logged_version(["nothing"]) is None


def test_properties_escape_what_java_would_misread() -> None:
    """Backslashes, line ends and characters beyond ASCII reach Kafka unchanged."""
    text = format_properties({"log.dirs": "/tmp/a\\b/ü\n😀"})

    assert text == "log.dirs=/tmp/a\\\\b/\\u00fc\\n\\ud83d\\ude00\n"


def test_broker_listens_on_loopback_only() -> None:
    """No setting names another address."""
    properties = server_properties(Path("/data"), 1111, 2222)

    assert properties["listeners"] == "BROKER://127.0.0.1:1111,CONTROLLER://127.0.0.1:2222"
    assert properties["advertised.listeners"] == properties["listeners"]
    assert properties["log.dirs"] == "/data"


def test_free_port_is_free_and_below_the_ephemeral_range() -> None:
    """A port with a listener counts as taken; ports of outgoing connections are never chosen."""
    with socket.create_server((HOST, 0)) as server:
        taken = server.getsockname()[1]

        assert not is_free(taken)
        assert is_listening(taken)
    assert not is_listening(taken)
    ports = {free_port() for _ in range(20)}
    assert all(20000 <= port < 32768 for port in ports)
    assert all(free_port(avoid=port) != port for port in ports)


def test_endpoints_are_kept_unless_taken(tmp_path: Path) -> None:
    """The last run's ports come back; a taken or unreadable record leads to new ones."""
    first = Endpoints.choose(tmp_path, None)
    first.save(tmp_path)

    assert Endpoints.choose(tmp_path, None) == first
    assert Endpoints.choose(tmp_path, 4242) == (4242, first.controller_port)
    assert (
        Endpoints.choose(tmp_path, first.controller_port).controller_port != first.controller_port
    )
    with socket.create_server((HOST, first.port)):
        assert Endpoints.choose(tmp_path, None).port != first.port
    for damaged in ("", "{", "[1]", '{"port": 1}'):
        (tmp_path / "ports.json").write_text(damaged)
        assert Endpoints.choose(tmp_path, None).port != Endpoints.choose(tmp_path, None)[1]


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ('openjdk version "25.0.2" 2026-01-20 LTS', 25),
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('java version "1.8.0_402"', 8),
        ("something else", None),
    ],
)
def test_java_version_is_read(tmp_path: Path, text: str, version: int | None) -> None:
    """Old and new version schemes; a program that is no Java has none."""
    assert java.java_version(_fake_java(tmp_path, text)) == version


def test_java_too_old_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """JAVA_HOME is taken first, and the error says which version was found."""
    program = _fake_java(tmp_path / "bin", 'openjdk version "11.0.2"')
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))

    with pytest.raises(JavaNotFoundError, match=rf"{program} is version 11"):
        java.find_java("system")
    assert java.find_java("auto") == java.find_java("wheel")


def test_stale_state_file_counts_as_none(tmp_path: Path) -> None:
    """A file of a dead process, of a reused id, or damaged, is no running broker."""
    alive = JavaProcess.adopt(os.getpid(), _started_s())
    assert alive is not None
    running = RunningBroker(os.getpid(), _started_s(), "127.0.0.1:1", "/data", "/data/broker.log")
    path = tmp_path / "broker.json"

    assert find_running(tmp_path) is None
    for damaged in ("", "{", "[]", '{"pid": 1}'):
        path.write_text(damaged)
        assert find_running(tmp_path) is None
    path.write_text(json.dumps(_fields(running) | {"started_s": _started_s() - 3600}))
    assert find_running(tmp_path) is None
    path.write_text(json.dumps(_fields(running)))
    assert find_running(tmp_path) == running


def test_withdrawing_leaves_the_file_of_another_broker(tmp_path: Path) -> None:
    """A command that ends late does not hide a broker that was started since."""
    mine = RunningBroker(1, 1.0, "127.0.0.1:1", "/a", "/a/broker.log")
    path = tmp_path / "broker.json"
    path.write_text(json.dumps(_fields(mine) | {"pid": 2}))

    withdraw(tmp_path, mine)

    assert path.exists()
    path.write_text(json.dumps(_fields(mine)))
    withdraw(tmp_path, mine)
    assert not path.exists()


@pytest.mark.parametrize(
    ("level", "release"),
    [(33, "4.4"), (31, "4.4"), (30, "4.3"), (22, "4.0"), (99, "4.5"), (1, "unknown")],
)
def test_metadata_level_tells_the_release(level: int, release: str) -> None:
    """As in Kafka's MetadataVersion."""
    assert release_of(level) == release


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        struct.pack(">i", 2**31 - 1),
        struct.pack(">i", -5) + b"x" * 20,
        struct.pack(">iih", 6, 1, 35),
        struct.pack(">iih", 11, 1, 0) + b"\xff\xff\xff\xff\x7f",
        struct.pack(">iih", 16, 1, 0) + b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        struct.pack(">iih", 13, 1, 0) + b"\x01\0\0\0\0\x01\0",
    ],
)
def test_servers_that_are_no_kafka_have_an_unknown_version(answer: bytes) -> None:
    """Any bytes, also none, also endless lengths, end in `unknown` and never in an exception."""
    with socket.create_server((HOST, 0)) as server:
        threading.Thread(target=_answer_once, args=(server, answer), daemon=True).start()

        assert ask_version(f"{HOST}:{server.getsockname()[1]}", timeout_s=2.0) == UNKNOWN


@pytest.mark.parametrize("servers", ["", "nonsense", "host:port", f"{HOST}:1", ":,:"])
def test_addresses_that_answer_nothing_have_an_unknown_version(servers: str) -> None:
    """A bad or dead address is an answer, too."""
    assert ask_version(servers, timeout_s=0.5) == UNKNOWN


@pytest.mark.kafka
def test_later_server_is_asked_when_the_first_is_dead(broker: str) -> None:
    """Bootstrap servers are a list."""
    assert ask_version(f"{HOST}:1,{broker}") == ("Apache Kafka", "4.4")


def _answer_once(server: socket.socket, answer: bytes) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(answer)


def _fake_java(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    program = folder / "java"
    program.write_text(f"#!/bin/sh\necho '{text}' >&2\n")
    program.chmod(0o755)
    return program


def _started_s() -> float:
    return float(psutil.Process().create_time())


def _fields(running: RunningBroker) -> dict[str, object]:
    return {name: getattr(running, name) for name in RunningBroker.__slots__}
