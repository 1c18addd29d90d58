"""The broker's jars: the committed list, the cache, checked downloads."""

import hashlib
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import pytest

from transport.embedded_broker.errors import JarChecksumError, JarsUnavailableError
from transport.embedded_broker.jars import (
    KAFKA_VERSION,
    LockedJar,
    default_cache_dir,
    ensure_jars,
    fetch_with_jgo,
    read_lock,
)

CONTENTS = {f"org/example/lib{i}/1.{i}/lib{i}-1.{i}.jar": f"jar {i}".encode() for i in range(12)}
LOCK = [
    LockedJar(PurePosixPath(path), hashlib.sha256(content).hexdigest())
    for path, content in CONTENTS.items()
]


class Repository:
    """A repository whose downloads are counted, and altered where asked."""

    def __init__(self, altered: str = "") -> None:
        self.altered = altered
        self.fetched: list[str] = []
        self._lock = threading.Lock()

    def fetch(self, jar: LockedJar, folder: Path) -> Path:
        """Write the jar's content as a download would."""
        with self._lock:
            self.fetched.append(jar.path.name)
        file = folder / jar.path
        file.parent.mkdir(parents=True, exist_ok=True)
        content = CONTENTS[str(jar.path)]
        file.write_bytes(content[::-1] if jar.path.name == self.altered else content)
        return file


def _no_network(jar: LockedJar, folder: Path) -> Path:
    raise AssertionError(f"{jar.path.name} was downloaded")


def test_committed_list_is_kafkas_class_path() -> None:
    """Every line is a jar with a SHA-256 sum; the broker and its log binding are among them."""
    jars = read_lock()

    names = {jar.path.name for jar in jars}
    assert len(names) == len(jars) == 45
    assert all(len(bytes.fromhex(jar.sha256)) == 32 for jar in jars)
    assert all(jar.path.suffix == ".jar" and ".." not in jar.path.parts for jar in jars)
    assert f"kafka_2.13-{KAFKA_VERSION}.jar" in names
    assert any(name.startswith("log4j-slf4j-impl-") for name in names)
    assert ("org.apache.kafka", "kafka_2.13", KAFKA_VERSION) in {jar.coordinates for jar in jars}


def test_first_call_downloads_and_second_needs_no_network(tmp_path: Path) -> None:
    """Each jar is fetched once, told to the progress, and returned in the list's order."""
    repository, told = Repository(), list[tuple[int, int]]()

    paths = ensure_jars(
        tmp_path, lock=LOCK, fetch=repository.fetch, progress=lambda *args: told.append(args)
    )

    assert [path.read_bytes() for path in paths] == list(CONTENTS.values())
    assert sorted(repository.fetched) == sorted(jar.path.name for jar in LOCK)
    assert told == [(n, 12) for n in range(1, 13)]
    assert ensure_jars(tmp_path, lock=LOCK, fetch=_no_network) == paths


def test_altered_download_is_refused_and_not_kept(tmp_path: Path) -> None:
    """The error names the jar and both sums; no altered byte reaches the cache."""
    with pytest.raises(JarChecksumError, match=r"lib3-1\.3\.jar has SHA-256 .* expected") as caught:
        ensure_jars(tmp_path, lock=LOCK, fetch=Repository(altered="lib3-1.3.jar").fetch)

    assert caught.value.jar == "lib3-1.3.jar"
    assert LOCK[3].sha256 in str(caught.value)
    assert list(tmp_path.rglob("lib3-1.3.jar")) == []
    assert list(tmp_path.rglob(".download-*")) == []


@pytest.mark.parametrize("damage", ["cut", "altered", "missing", "dangling"])
def test_damaged_cache_is_repaired(tmp_path: Path, damage: str) -> None:
    """A jar that changed in the cache is never loaded: it alone is fetched again."""
    victim = ensure_jars(tmp_path, lock=LOCK, fetch=Repository().fetch)[5]
    content = victim.read_bytes()
    victim.unlink()
    if damage == "dangling":
        victim.symlink_to(tmp_path / "elsewhere")
    elif damage != "missing":
        victim.write_bytes(content[:-1] if damage == "cut" else content.swapcase())
    repository = Repository()

    ensure_jars(tmp_path, lock=LOCK, fetch=repository.fetch)

    assert repository.fetched == [victim.name]
    assert victim.read_bytes() == content


def test_interrupted_download_keeps_what_is_complete(tmp_path: Path) -> None:
    """What was checked before the failure is not fetched again."""
    good = Repository()

    def fail_at_last(jar: LockedJar, folder: Path) -> Path:
        if jar == LOCK[-1]:
            raise ConnectionError("the line went dead")
        return good.fetch(jar, folder)

    with pytest.raises(JarsUnavailableError, match="the line went dead"):
        ensure_jars(tmp_path, lock=LOCK, fetch=fail_at_last)
    kept = {path.name for path in tmp_path.rglob("*.jar")}
    again = Repository()
    ensure_jars(tmp_path, lock=LOCK, fetch=again.fetch)

    assert kept
    assert sorted(again.fetched) == sorted({jar.path.name for jar in LOCK} - kept)


def test_callers_that_fill_one_cache_together_do_no_harm(tmp_path: Path) -> None:
    """Eight at once: every one returns with an intact class path."""
    start = threading.Barrier(8)

    def fill(_: int) -> list[bytes]:
        start.wait()
        return [p.read_bytes() for p in ensure_jars(tmp_path, lock=LOCK, fetch=Repository().fetch)]

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(fill, range(8)))

    assert results == [list(CONTENTS.values())] * 8
    assert list(tmp_path.rglob(".download-*")) == []


def test_unreachable_repository_says_what_to_do(tmp_path: Path) -> None:
    """The error names the cause, the folder to copy and the way around."""

    def unreachable(jar: LockedJar, folder: Path) -> Path:
        raise ConnectionError("no route to host")

    with pytest.raises(JarsUnavailableError) as caught:
        ensure_jars(tmp_path, lock=LOCK, fetch=unreachable)

    for part in ("no route to host", str(tmp_path), "KAFKA_BOOTSTRAP_SERVERS"):
        assert part in str(caught.value)


def test_unwritable_cache_is_a_typed_error(tmp_path: Path) -> None:
    """A cache folder that is a file is reported, not a traceback."""
    (tmp_path / "kafka").write_text("")

    with pytest.raises(JarsUnavailableError, match="kafka"):
        ensure_jars(tmp_path / "kafka", lock=LOCK, fetch=Repository().fetch)


@pytest.mark.kafka
def test_missing_jar_comes_through_jgo(tmp_path: Path) -> None:
    """The real downloader fetches the real jar of the committed list, with the listed sum."""
    lock = read_lock()
    ensure_jars(default_cache_dir())
    shutil.copytree(default_cache_dir() / KAFKA_VERSION, tmp_path / KAFKA_VERSION)
    smallest = min(lock, key=lambda jar: (tmp_path / KAFKA_VERSION / jar.path).stat().st_size)
    (tmp_path / KAFKA_VERSION / smallest.path).unlink()
    fetched = []

    def fetch(jar: LockedJar, folder: Path) -> Path:
        fetched.append(jar)
        return fetch_with_jgo(jar, folder)

    ensure_jars(tmp_path, fetch=fetch)

    assert fetched == [smallest]
    assert (tmp_path / KAFKA_VERSION / smallest.path).is_file()
