"""Asks a broker for its name and version, over the wire.

No client library shows this: `ApiVersions` answers with feature levels, and a broker's highest
supported level of the feature `metadata.version` tells its release (level 33 is 4.4). Version 3
of the request is understood since Kafka 2.4 and answered before any login. A listener with TLS is
not asked: it says `unknown`.
"""

import socket
import struct
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from transport.embedded_broker.log_file import logged_version, tail

_API_VERSIONS = 18
_REQUEST_VERSION = 3
_MAX_ANSWER_BYTES = 1 << 20
_SUPPORTED_FEATURES_TAG = 0

# First metadata.version level of each release (org.apache.kafka.server.common.MetadataVersion).
_FIRST_LEVELS = {
    "3.3": 4,
    "3.4": 8,
    "3.5": 9,
    "3.6": 12,
    "3.7": 15,
    "3.8": 20,
    "3.9": 21,
    "4.0": 22,
    "4.1": 26,
    "4.2": 28,
    "4.3": 30,
    "4.4": 31,
    "4.5": 34,
}


class BrokerVersion(NamedTuple):
    """Name and version of a broker, as far as it tells them."""

    name: str
    version: str
    """`4.4.0`, or `4.4` where only the release is known, or `unknown`."""


UNKNOWN = BrokerVersion("Kafka-compatible broker", "unknown")


def ask_version(bootstrap_servers: str, timeout_s: float = 5.0) -> BrokerVersion:
    """Ask the first broker that answers; `unknown` if none tells.

    Args:
        bootstrap_servers: `host:port`, several separated by commas.
        timeout_s: Limit per broker.
    """
    for server in bootstrap_servers.split(","):
        host, _, port = server.strip().rpartition(":")
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout_s) as connection:
                connection.settimeout(timeout_s)
                level = _metadata_level(_exchange(connection))
        except (OSError, ValueError):
            continue
        if level is not None:
            return BrokerVersion("Apache Kafka", release_of(level))
    return UNKNOWN


def ask_version_with_log(bootstrap_servers: str, log_path: Path) -> BrokerVersion:
    """Ask a broker whose log can be read: on the wire it tells `4.4`, in its log `4.4.0`.

    The log's number is used only if the broker's answer agrees with it.
    """
    asked = ask_version(bootstrap_servers)
    logged = logged_version(tail(log_path))
    if logged is not None and logged.startswith(f"{asked.version}."):
        return asked._replace(version=logged)
    return asked


def release_of(metadata_level: int) -> str:
    """Return the release whose brokers support this metadata level at most.

    A level that is newer than the table belongs to its last release or a later one.
    """
    releases = [name for name, first in _FIRST_LEVELS.items() if first <= metadata_level]
    return releases[-1] if releases else "unknown"


def _exchange(connection: socket.socket) -> bytes:
    """Send ApiVersions and return the answer without length and correlation id."""
    software = _compact_string("petstream") + _compact_string("1")
    header = struct.pack(">hhih", _API_VERSIONS, _REQUEST_VERSION, 1, -1) + b"\0"
    request = header + software + b"\0"
    connection.sendall(struct.pack(">i", len(request)) + request)
    (num_bytes,) = struct.unpack(">i", _receive(connection, 4))
    if not 4 < num_bytes <= _MAX_ANSWER_BYTES:
        raise ValueError(f"an answer of {num_bytes} bytes is not ApiVersions")
    return _receive(connection, num_bytes)[4:]


def _receive(connection: socket.socket, num_bytes: int) -> bytes:
    received = bytearray()
    while len(received) < num_bytes:
        chunk = connection.recv(num_bytes - len(received))
        if not chunk:
            raise ValueError("the connection ended inside an answer")
        received += chunk
    return bytes(received)


def _metadata_level(answer: bytes) -> int | None:
    """Read the highest supported `metadata.version`; None if the broker names none."""
    body = BytesIO(answer)
    (error,) = struct.unpack(">h", _take(body, 2))
    if error != 0:  # an older broker: its answer has another form
        return None
    for _ in range(_unsigned_varint(body) - 1):
        _take(body, 6)  # key, lowest and highest version
        _skip_tags(body)
    _take(body, 4)  # throttle time
    for _ in range(_unsigned_varint(body)):
        tag, num_bytes = _unsigned_varint(body), _unsigned_varint(body)
        content = BytesIO(_take(body, num_bytes))
        if tag == _SUPPORTED_FEATURES_TAG:
            return _highest_levels(content).get("metadata.version")
    return None


def _highest_levels(content: BytesIO) -> dict[str, int]:
    levels = {}
    for _ in range(_unsigned_varint(content) - 1):
        name = _take(content, _unsigned_varint(content) - 1).decode()
        _lowest, highest = struct.unpack(">hh", _take(content, 4))
        _skip_tags(content)
        levels[name] = highest
    return levels


def _skip_tags(body: BytesIO) -> None:
    for _ in range(_unsigned_varint(body)):
        _unsigned_varint(body)
        _take(body, _unsigned_varint(body))


def _unsigned_varint(body: BytesIO) -> int:
    value = 0
    for shift in range(0, 35, 7):
        (byte,) = _take(body, 1)
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value
    raise ValueError("a number of more than five bytes")


def _take(body: BytesIO, num_bytes: int) -> bytes:
    taken = body.read(max(num_bytes, 0))
    if len(taken) != num_bytes:
        raise ValueError("the answer is cut off")
    return taken


def _compact_string(text: str) -> bytes:
    return bytes([len(text) + 1]) + text.encode()
