"""What can go wrong with the embedded broker.

EmbeddedBrokerError
├── JavaNotFoundError      no Java 17 or newer, neither as a wheel nor on this machine
├── JarsUnavailableError   the jars are not cached and cannot be downloaded
├── JarChecksumError       a downloaded jar is not the one of the committed list
├── BrokerStateError       the call does not fit the state: started twice, or not running
└── BrokerFailedError      the process failed; names the log file and its last line
    ├── PortTakenError     another process listens on the port
    ├── DataDirInUseError  another broker runs on the same data folder
    └── BrokerTimeoutError alive, but no answer in time
"""

from pathlib import Path

_ELSEWHERE = "or use a broker of yours: --bootstrap-servers or KAFKA_BOOTSTRAP_SERVERS"


class EmbeddedBrokerError(Exception):
    """Base of all errors of the embedded broker."""


class JavaNotFoundError(EmbeddedBrokerError):
    """No Java of at least version 17."""

    def __init__(self, tried: str) -> None:
        super().__init__(
            f"no Java 17 or newer ({tried}): install the extra petstream[broker], "
            f"which brings one, {_ELSEWHERE}"
        )


class JarsUnavailableError(EmbeddedBrokerError):
    """The broker's jars are neither cached nor downloadable."""

    def __init__(self, reason: str, cache_dir: Path) -> None:
        super().__init__(
            f"cannot fetch Kafka's jars ({reason}): check the network, copy {cache_dir} from a "
            f"machine that has it, {_ELSEWHERE}"
        )
        self.cache_dir = cache_dir


class JarChecksumError(EmbeddedBrokerError):
    """A downloaded jar differs from the committed list; it was not kept."""

    def __init__(self, jar: str, *, expected: str, actual: str) -> None:
        super().__init__(
            f"{jar} has SHA-256 {actual}, expected {expected}: the download was altered or cut, "
            f"nothing was kept; check the Maven mirror in use and start again"
        )
        self.jar = jar


class BrokerStateError(EmbeddedBrokerError):
    """The call does not fit the state of the broker."""


class BrokerFailedError(EmbeddedBrokerError):
    """The broker's process failed.

    Attributes:
        log_path: The broker's log.
        last_line: The line of the log that tells most: its last error, else its last line.
    """

    def __init__(self, what: str, log_path: Path, last_line: str) -> None:
        super().__init__(f"{what}; log {log_path}" + (f": {last_line}" if last_line else ""))
        self.log_path = log_path
        self.last_line = last_line


class PortTakenError(BrokerFailedError):
    """Another process listens on the broker's port."""

    def __init__(self, port: int, log_path: Path, last_line: str = "") -> None:
        super().__init__(
            f"port {port} of 127.0.0.1 is taken: choose another or stop what listens there",
            log_path,
            last_line,
        )
        self.port = port


class DataDirInUseError(BrokerFailedError):
    """Another broker runs on the same data folder."""

    def __init__(self, data_dir: Path, log_path: Path) -> None:
        super().__init__(f"another broker runs on {data_dir}: stop it first", log_path, "")
        self.data_dir = data_dir


class BrokerTimeoutError(BrokerFailedError):
    """The broker is alive but did not answer within the limit."""
