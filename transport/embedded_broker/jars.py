"""Kafka's jars: a committed list with SHA-256 sums, a cache, and the download of what is missing.

The list is the class path: nothing else of the cache is loaded, and every jar is compared with
its sum before each start. A missing or altered jar is downloaded again through jgo's Maven
resolver into a private folder, compared, and only then moved into the cache by a rename; so
processes that fill one cache together cannot harm each other, and an interrupted download leaves
nothing behind but what is complete.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import platformdirs

from transport.embedded_broker.errors import JarChecksumError, JarsUnavailableError

KAFKA_VERSION = "4.4.0"
LOCK_PATH = Path(__file__).with_name(f"kafka-{KAFKA_VERSION}.sha256")
"""One line per jar as `sha256sum` prints it, with the jar's path in a Maven repository."""

_NUM_DOWNLOADS = 8

Progress = Callable[[int, int], None]
"""Called with (jars ready, jars in all)."""


@dataclass(frozen=True, slots=True)
class LockedJar:
    """One jar of the committed list."""

    path: PurePosixPath
    """Below a Maven repository: group folders, artifact, version, file name."""
    sha256: str

    @property
    def coordinates(self) -> tuple[str, str, str]:
        """Group, artifact and version."""
        *group, artifact, version, _file = self.path.parts
        return ".".join(group), artifact, version


Fetch = Callable[[LockedJar, Path], Path]
"""Downloads one jar below the folder given and returns the file."""


def default_cache_dir() -> Path:
    """Return the folder of this user's cached jars."""
    return Path(platformdirs.user_cache_dir("petstream")) / "kafka"


def read_lock(path: Path = LOCK_PATH) -> list[LockedJar]:
    """Read the committed list."""
    rows = (line.split("  ", 1) for line in path.read_text().splitlines())
    return [LockedJar(PurePosixPath(jar), sha256) for sha256, jar in rows]


def fetch_with_jgo(jar: LockedJar, folder: Path) -> Path:
    """Download one jar through jgo's resolver, from Maven Central or the mirror jgo is set to.

    A repository named `central` in jgo's own settings file replaces Maven Central.
    """
    from jgo.config import GlobalSettings
    from jgo.constants import MAVEN_CENTRAL_URL
    from jgo.maven import MavenContext

    repositories = {"central": MAVEN_CENTRAL_URL} | GlobalSettings.load().repositories
    context = MavenContext(repo_cache=folder, remote_repos=repositories, timeout=60)
    group, artifact, version = jar.coordinates
    return Path(context.project(group, artifact).at_version(version).artifact().resolve())


def ensure_jars(
    cache_dir: Path,
    *,
    lock: Sequence[LockedJar] | None = None,
    fetch: Fetch = fetch_with_jgo,
    progress: Progress | None = None,
) -> list[Path]:
    """Return the class path, downloading what the cache lacks; no network when it lacks nothing.

    Args:
        cache_dir: Holds the jars, one folder per Kafka version. Created.
        lock: The jars wanted. None: the committed list.
        fetch: How one jar is downloaded.
        progress: Told about every jar; called only when something is downloaded.

    Raises:
        JarsUnavailableError: If a jar cannot be downloaded, or the cache cannot be written.
        JarChecksumError: If a download differs from the list. It is not kept.
    """
    jars = read_lock() if lock is None else lock
    folder = cache_dir / KAFKA_VERSION
    missing = [jar for jar in jars if not _is_intact(folder / jar.path, jar.sha256)]
    if missing:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _download(missing, folder, fetch, progress, num_ready=len(jars) - len(missing))
        except ImportError as error:
            raise JarsUnavailableError(
                "the downloader is not installed; it comes with petstream[broker]", cache_dir
            ) from error
        except OSError as error:  # requests' errors are OSErrors, too
            raise JarsUnavailableError(f"{type(error).__name__}: {error}", cache_dir) from error
        except RuntimeError as error:  # jgo: not found, or differs from the repository's SHA-1
            raise JarsUnavailableError(str(error), cache_dir) from error
    return [folder / jar.path for jar in jars]


def sha256_of(path: Path) -> str:
    """Return the SHA-256 sum of a file as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_intact(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_of(path) == sha256


def _download(
    jars: Sequence[LockedJar],
    folder: Path,
    fetch: Fetch,
    progress: Progress | None,
    num_ready: int,
) -> None:
    """Download jars in threads, each checked and then moved into place by a rename."""
    num_jars = num_ready + len(jars)
    # Inside the target folder: a rename is atomic only within one file system.
    with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as staging:
        pool = ThreadPoolExecutor(_NUM_DOWNLOADS, thread_name_prefix="kafka-jars")
        try:
            downloads = [
                pool.submit(_download_one, jar, folder, fetch, Path(staging)) for jar in jars
            ]
            for download in as_completed(downloads):
                download.result()
                num_ready += 1
                if progress is not None:
                    progress(num_ready, num_jars)
        finally:
            pool.shutdown(cancel_futures=True)


def _download_one(jar: LockedJar, folder: Path, fetch: Fetch, staging: Path) -> None:
    file = fetch(jar, staging)
    actual = sha256_of(file)
    if actual != jar.sha256:
        raise JarChecksumError(file.name, expected=jar.sha256, actual=actual)
    target = folder / jar.path
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(file, target)
