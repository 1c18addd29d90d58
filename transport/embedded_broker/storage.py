"""Formats the data folder with Kafka's own tool, once."""

import subprocess
import uuid
from base64 import urlsafe_b64encode
from pathlib import Path

from transport.embedded_broker.errors import BrokerFailedError
from transport.embedded_broker.java import QUICK_START_FLAGS
from transport.embedded_broker.log_file import telling_line

_FORMAT_TIMEOUT_S = 60.0


def format_storage(
    java: Path, class_path: str, config: Path, topics_dir: Path, log_path: Path
) -> None:
    """Make an empty folder the storage of a new one-node cluster; leave a formatted one as it is.

    Args:
        java: The program that runs the tool.
        class_path: Kafka's jars, separated by colons.
        config: The broker's settings file.
        topics_dir: The folder that the settings name.
        log_path: Gets the tool's output.

    Raises:
        BrokerFailedError: If the tool fails.
    """
    if (topics_dir / "meta.properties").exists():
        return
    # Kafka's form of a cluster id: 16 random bytes in base64. A leading dash would be an option.
    cluster_id = "P" + urlsafe_b64encode(uuid.uuid4().bytes).decode()[1:22]
    arguments: list[str | Path] = [
        "format",
        "--standalone",
        "--cluster-id",
        cluster_id,
        "--config",
        config,
    ]
    command: list[str | Path] = [
        java,
        *QUICK_START_FLAGS,
        "-cp",
        class_path,
        "kafka.tools.StorageTool",
        *arguments,
    ]
    try:
        tool = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_FORMAT_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BrokerFailedError("cannot run StorageTool", log_path, str(error)) from error
    with log_path.open("ab") as log:
        log.write(tool.stdout)
    if tool.returncode != 0:
        line = telling_line(tool.stdout.decode(errors="replace").splitlines())
        raise BrokerFailedError(f"cannot format {topics_dir}", log_path, line)
