"""A real Apache Kafka as a child process: no Docker, no installed Java, nothing imitated.

One KRaft node on the loopback address, for development, the demo and tests. It is formatted with
Kafka's own `StorageTool` and run with `kafka.Kafka`. It is not meant for production: one
replica, no encryption, no access control.
"""

import shutil
import tempfile
import time
from pathlib import Path
from types import TracebackType

from transport.embedded_broker import log_file, ports
from transport.embedded_broker.data_dir_lock import locked
from transport.embedded_broker.diagnosis import explain_end
from transport.embedded_broker.endpoints import Endpoints
from transport.embedded_broker.errors import (
    BrokerFailedError,
    BrokerStateError,
    BrokerTimeoutError,
    PortTakenError,
)
from transport.embedded_broker.health import ClusterHealth, ask_health
from transport.embedded_broker.jars import Progress, default_cache_dir, ensure_jars
from transport.embedded_broker.java import QUICK_START_FLAGS, JavaChoice, find_java
from transport.embedded_broker.process import JavaProcess
from transport.embedded_broker.server_config import format_properties, server_properties
from transport.embedded_broker.storage import format_storage
from transport.embedded_broker.version import BrokerVersion, ask_version_with_log

START_TIMEOUT_S = 60.0
_POLL_S = 0.05
_PORT_ATTEMPTS = 3
_JVM_FLAGS = [
    "-Xmx512m",
    "-Xms256m",
    *QUICK_START_FLAGS,
    "-XX:+ExitOnOutOfMemoryError",
    "-Djava.awt.headless=true",
    # zstd and lz4 load native code; without the flag Java 24 and later warn about it.
    "--enable-native-access=ALL-UNNAMED",
]


class EmbeddedBroker:
    """One broker process and its data.

    Invariant: while the object is started, the process is ours and dies with us (see
    `launcher.py`), unless it was detached. Not for use from several threads.

    Attributes:
        data_dir: Topics, settings and log. A temporary folder, removed by `stop`, if none was
            given.
        log_path: The broker's log.
    """

    def __init__(
        self,
        data_dir: Path | None = None,
        port: int | None = None,
        *,
        cache_dir: Path | None = None,
        java: JavaChoice = "auto",
        detach: bool = False,
        progress: Progress | None = None,
    ) -> None:
        """Describe a broker; `start` starts it.

        Args:
            data_dir: Where it keeps its data; a later broker on the same folder has the same
                topics. None: a temporary folder.
            port: The clients' port. None: the one of the last run on this folder, else a free one.
            cache_dir: Where Kafka's jars are kept. None: this user's cache.
            java: Which Java runs it.
            detach: Let the process outlive this one. Needs a `data_dir`.
            progress: Told about the jars while they are downloaded.
        """
        if detach and data_dir is None:
            raise ValueError("a detached broker needs a data_dir: nobody would remove a temporary")
        self._is_temporary = data_dir is None
        self.data_dir = data_dir or Path(tempfile.mkdtemp(prefix="petstream-broker-"))
        self.log_path = self.data_dir / "broker.log"
        self._wanted_port = port
        self._port: int | None = None
        self._cache_dir = cache_dir or default_cache_dir()
        self._java = java
        self._detach = detach
        self._progress = progress
        self._process: JavaProcess | None = None
        self._log_start = 0

    def __enter__(self) -> "EmbeddedBroker":
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def bootstrap_servers(self) -> str:
        """Address for clients.

        Raises:
            BrokerStateError: If the broker was never started.
        """
        if self._port is None:
            raise BrokerStateError("the broker has no address yet: call start() first")
        return f"{ports.HOST}:{self._port}"

    @property
    def process(self) -> JavaProcess:
        """The running process.

        Raises:
            BrokerStateError: If the broker is not running.
        """
        if self._process is None or not self._process.is_running():
            raise BrokerStateError("the broker is not running: call start() first")
        return self._process

    def is_running(self) -> bool:
        """Tell whether the process lives (`health` tells whether it serves)."""
        return self._process is not None and self._process.is_running()

    def start(self) -> str:
        """Start the broker and wait until it answers an admin request.

        Returns:
            Its bootstrap servers.

        Raises:
            BrokerStateError: If it is running already.
            JavaNotFoundError: If there is no Java to run it.
            JarsUnavailableError: If its jars are neither cached nor downloadable.
            JarChecksumError: If a downloaded jar is not the expected one.
            PortTakenError: If the port asked for is taken.
            DataDirInUseError: If another broker runs on the data folder.
            BrokerFailedError: If the process ends or does not answer within 60 s. The error names
                the log and its telling line; the data folder is kept.
        """
        if self.is_running():
            raise BrokerStateError(f"the broker runs already at {self.bootstrap_servers}")
        java = find_java(self._java)
        class_path = ":".join(map(str, ensure_jars(self._cache_dir, progress=self._progress)))
        self.data_dir.mkdir(parents=True, exist_ok=True)
        remaining = _PORT_ATTEMPTS
        while True:
            remaining -= 1
            try:
                self._launch(java, class_path)
                return self.bootstrap_servers
            except PortTakenError:
                # A free port may be taken between choosing and using it; a wanted one is final.
                if self._wanted_port is not None or self._port is not None or not remaining:
                    raise

    def stop(self) -> None:
        """Stop the broker in order (SIGTERM, after 20 s SIGKILL); remove a temporary folder.

        Does nothing to a broker that is not running.
        """
        if self._process is not None:
            self._process.stop()
            self._process = None
        if self._is_temporary:
            shutil.rmtree(self.data_dir, ignore_errors=True)

    def kill(self) -> None:
        """End the process with SIGKILL, as a crash would; the data stays. `restart` brings it back.

        Raises:
            BrokerStateError: If the broker is not running.
        """
        self.process.kill()
        self._process = None

    def restart(self) -> str:
        """Start again on the same port and data, after a `kill` or in order.

        Raises:
            As `start`.
        """
        if self._process is not None:
            self._process.stop()
            self._process = None
        return self.start()

    def check_process(self) -> None:
        """Do nothing if the process lives; for loops that stay beside a broker.

        Raises:
            BrokerStateError: If the broker is not started.
            BrokerFailedError: If the process has ended. `restart` may bring it back.
        """
        if self._process is None or self._port is None:
            raise BrokerStateError("the broker is not started: call start() first")
        if not self._process.is_running():
            raise self._explain_end(self._process, self._port)

    def health(self, timeout_s: float = 5.0) -> ClusterHealth:
        """Ask the broker for its cluster's description.

        Raises:
            BrokerStateError: If it is not running.
            BrokerTimeoutError: If it does not answer in time.
        """
        process = self.process
        answer = ask_health(self.bootstrap_servers, timeout_s)
        if answer is None:
            what = f"the broker (process {process.pid}) did not answer within {timeout_s:g} s"
            raise BrokerTimeoutError(
                what, self.log_path, log_file.telling_line(log_file.tail(self.log_path))
            )
        return answer

    def version(self) -> BrokerVersion:
        """Ask the running broker for its name and version.

        The full number comes from the line that this process wrote to its log when it started.
        """
        return ask_version_with_log(self.bootstrap_servers, self.log_path)

    def _launch(self, java: Path, class_path: str) -> None:
        """Start the process once and wait until it serves; `_port` is set only on success."""
        endpoints = Endpoints.choose(self.data_dir, self._port or self._wanted_port)
        if not ports.is_free(endpoints.port):
            raise PortTakenError(endpoints.port, self.log_path)
        topics_dir = self.data_dir / "topics"
        config = self.data_dir / "server.properties"
        command: list[str | Path] = [
            java,
            *_JVM_FLAGS,
            f"-Dlog4j2.configurationFile={Path(__file__).with_name('log4j2.properties')}",
            f"-Dpetstream.log={self.log_path}",
            "-cp",
            class_path,
            "kafka.Kafka",
            config,
        ]
        with locked(self.data_dir, self.log_path) as lock:
            config.write_text(format_properties(server_properties(topics_dir, *endpoints)))
            format_storage(java, class_path, config, topics_dir, self.log_path)
            self._log_start = self.log_path.stat().st_size if self.log_path.exists() else 0
            self._process = JavaProcess.start(
                command, self.log_path, lock=lock, detach=self._detach
            )
        try:
            self._wait_until_serving(self._process, endpoints.port)
        except BaseException:  # the process must not outlive a start that failed or was broken off
            self._process.kill()
            self._process = None
            raise
        endpoints.save(self.data_dir)
        self._port = endpoints.port

    def _wait_until_serving(self, process: JavaProcess, port: int) -> None:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline_s:
            if not process.is_running():
                raise self._explain_end(process, port)
            if ports.is_listening(port) and ask_health(f"{ports.HOST}:{port}", 5.0):
                return
            time.sleep(_POLL_S)
        raise BrokerTimeoutError(
            f"the broker did not answer within {START_TIMEOUT_S:g} s",
            self.log_path,
            log_file.telling_line(log_file.tail(self.log_path, start=self._log_start)),
        )

    def _explain_end(self, process: JavaProcess, port: int) -> BrokerFailedError:
        return explain_end(
            self.log_path,
            self._log_start,
            port=port,
            exit_status=process.exit_status(),
        )
