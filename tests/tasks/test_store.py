"""The store: revisions assigned once, found again, safe among processes and after crashes."""

import contextlib
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest

from messages.task_event import TaskReference
from tasks.artifact import Artifact, open_artifact
from tasks.errors import (
    ArtifactMissing,
    BackboneUnknown,
    ChecksumMismatch,
    NonFiniteWeights,
    PathEscape,
    RevisionConflict,
    StoreUnusable,
    TaskError,
    TaskNotInStore,
)
from tasks.registry import revision_of
from tasks.store import TaskStore, with_revision
from tests.tasks.artifacts import SHAPE, SHAPES, trained_level, write

WEIGHTS = "level-0.safetensors"


@pytest.fixture
def store(tmp_path: Path) -> TaskStore:
    """An empty store whose folder does not exist yet."""
    return TaskStore(tmp_path / "store" / "tasks")


def source(tmp_path: Path, seed: int = 0, name: str = "weather") -> Path:
    """Write an artifact with weights of a seed, once."""
    folder = tmp_path / f"{name}-{seed}"
    return folder if folder.exists() else write(folder, trained_level(seed=seed), name=name).folder


def numbers(store: TaskStore) -> list[int]:
    """Return the revisions of `weather` in the store."""
    return sorted(int(path.name) for path in (store.root / "weather").glob("*"))


def remove(store: TaskStore, revision: int) -> None:
    """Take a revision of `weather` away as an operator does who clears up."""
    (store.root / "weather" / str(revision)).rename(store.root / ".removed")
    shutil.rmtree(store.root / ".removed")


def test_an_added_task_is_opened_by_its_reference(store: TaskStore, tmp_path: Path) -> None:
    """What the topic will carry leads back to the same weights."""
    added = store.add(source(tmp_path, 3), SHAPES)

    found = store.open(revision_of(added).reference)

    assert found == added
    assert found.folder == store.root / "weather" / "1"
    np.testing.assert_array_equal(
        found.load_level(0, SHAPE).head_weight, trained_level(seed=3).head_weight
    )


def test_new_content_is_the_next_revision(store: TaskStore, tmp_path: Path) -> None:
    """Also after another revision was removed from the middle."""
    revisions = [
        store.add(source(tmp_path, seed), SHAPES).description.revision for seed in range(3)
    ]
    remove(store, 2)

    again = store.add(source(tmp_path, 9), SHAPES)

    assert revisions == [1, 2, 3]
    assert again.description.revision == 4
    assert numbers(store) == [1, 3, 4]


def test_known_content_keeps_its_revision(store: TaskStore, tmp_path: Path) -> None:
    """Whatever revision the folder itself claims."""
    for seed in range(3):
        store.add(source(tmp_path, seed), SHAPES)
    folder = source(tmp_path, 1)
    claimed = with_revision(open_artifact(folder).description, 77)
    (folder / "task.json").write_bytes(claimed.to_bytes())

    again = store.add(folder, SHAPES)

    assert again.description.revision == 2
    assert numbers(store) == [1, 2, 3]


def test_registered_revisions_of_other_stores_count(store: TaskStore, tmp_path: Path) -> None:
    """Content that the topic knows as revision 5 is revision 5 here; new content comes after."""
    description = open_artifact(source(tmp_path, 0)).description
    registered = {4: "sha256:" + "0" * 64, 5: with_revision(description, 5).digest()}

    known = store.add(source(tmp_path, 0), SHAPES, registered=registered)
    new = store.add(source(tmp_path, 1), SHAPES, registered=registered)

    assert known.description.revision == 5
    assert known.digest == registered[5]
    assert new.description.revision == 6


def test_a_store_that_disagrees_with_the_topic_says_so(store: TaskStore, tmp_path: Path) -> None:
    """Revision 1 is one thing here and another there: nothing is overwritten."""
    here = store.add(source(tmp_path, 0), SHAPES)
    there = with_revision(open_artifact(source(tmp_path, 1)).description, 1).digest()

    with pytest.raises(RevisionConflict, match="move it away"):
        store.add(source(tmp_path, 1), SHAPES, registered={1: there})

    assert store.open(revision_of(here).reference) == here


@pytest.mark.parametrize("damage", ["weights", "description", "missing"])
def test_adding_again_repairs(store: TaskStore, tmp_path: Path, damage: str) -> None:
    """The same content, whatever happened to its copy."""
    added = store.add(source(tmp_path), SHAPES)
    reference = revision_of(added).reference
    if damage == "weights":
        (added.folder / WEIGHTS).write_bytes(b"damaged")
    elif damage == "description":
        (added.folder / "task.json").write_bytes(b"damaged")
    else:
        (added.folder / WEIGHTS).unlink()
    with pytest.raises(TaskError):
        store.open(reference).validate(SHAPES)

    store.add(source(tmp_path), SHAPES, registered={1: reference.digest})

    store.open(reference).validate(SHAPES)
    assert numbers(store) == [1]


def test_an_invalid_artifact_leaves_no_trace(store: TaskStore, tmp_path: Path) -> None:
    """No revision, no staging folder; the next one gets the number."""
    bad = source(tmp_path, 0)
    raw = bytearray((bad / WEIGHTS).read_bytes())
    raw[-2:] = np.array([np.nan], np.float16).tobytes()
    (bad / WEIGHTS).write_bytes(raw)

    with pytest.raises(ChecksumMismatch):
        store.add(bad, SHAPES)
    pin(bad)
    with pytest.raises(NonFiniteWeights):
        store.add(bad, SHAPES)

    assert [path.name for path in store.root.iterdir()] == [".lock"]
    assert store.add(source(tmp_path, 1), SHAPES).description.revision == 1


def pin(folder: Path) -> None:
    """Make the description pin the weight file as it is."""
    task = json.loads((folder / "task.json").read_bytes())
    task["levels"][0]["sha256"] = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    (folder / "task.json").write_text(json.dumps(task))


def test_an_unknown_backbone_is_refused(store: TaskStore, tmp_path: Path) -> None:
    """Nothing that cannot be checked is stored."""
    with pytest.raises(BackboneUnknown):
        store.add(source(tmp_path), {})
    assert numbers(store) == []


def test_other_files_of_the_folder_are_not_copied(store: TaskStore, tmp_path: Path) -> None:
    """Checkpoints, pickles and notes stay where they are."""
    folder = source(tmp_path)
    (folder / "optimizer.pt").write_bytes(b"pickle")

    added = store.add(folder, SHAPES)

    assert sorted(os.listdir(added.folder)) == [WEIGHTS, "task.json"]


def test_a_link_in_the_source_is_refused(store: TaskStore, tmp_path: Path) -> None:
    """It is not copied as what it points to."""
    folder = source(tmp_path)
    (folder / WEIGHTS).rename(tmp_path / "elsewhere")
    (folder / WEIGHTS).symlink_to(tmp_path / "elsewhere")

    with pytest.raises(PathEscape):
        store.add(folder, SHAPES)


def test_a_digest_that_is_not_the_registered_one_is_refused(
    store: TaskStore, tmp_path: Path
) -> None:
    """A store that was tampered with does not answer."""
    store.add(source(tmp_path), SHAPES)

    with pytest.raises(ChecksumMismatch):
        store.open(TaskReference("weather", 1, "sha256:" + "0" * 64))


@pytest.mark.parametrize(
    "name", ["../weather", "/etc", "..", ".", "", "Weather", "a/b", "a\0b", ".lock", "weather\n"]
)
def test_a_reference_cannot_leave_the_store(store: TaskStore, tmp_path: Path, name: str) -> None:
    """Names come over the wire."""
    store.add(source(tmp_path), SHAPES)

    with pytest.raises(PathEscape):
        store.open(TaskReference(name, 1, "sha256:" + "0" * 64))


def test_links_in_the_store_are_not_followed(store: TaskStore, tmp_path: Path) -> None:
    """Neither for a task nor for a revision."""
    added = store.add(source(tmp_path), SHAPES)
    outside = tmp_path / "outside"
    added.folder.rename(outside)
    added.folder.symlink_to(outside)

    with pytest.raises(PathEscape):
        store.open(revision_of(added).reference)


def test_what_is_not_there_is_told(store: TaskStore, tmp_path: Path) -> None:
    """In an empty store, and where the task has other revisions."""
    with pytest.raises(TaskNotInStore, match="petstream tasks add"):
        store.open(TaskReference("weather", 1, "sha256:" + "0" * 64))

    store.add(source(tmp_path), SHAPES)

    with pytest.raises(TaskNotInStore, match="weather revision 2"):
        store.open(TaskReference("weather", 2, "sha256:" + "0" * 64))


def test_an_unusable_folder_is_told(tmp_path: Path) -> None:
    """With the setting that names another."""
    (tmp_path / "file").write_text("no folder")

    with pytest.raises(StoreUnusable, match="PETSTREAM_TASKS_DIR"):
        TaskStore(tmp_path / "file").add(source(tmp_path), SHAPES)


def test_what_else_lies_in_the_store_is_passed_over(store: TaskStore, tmp_path: Path) -> None:
    """Revisions count as numbers, not as text; files and folders of others are no revisions."""
    for seed in range(10):
        store.add(source(tmp_path, seed), SHAPES)
    (store.root / "notes.txt").write_text("mine")
    (store.root / "weather" / "latest").mkdir()
    (store.root / "weather" / "099").mkdir()

    assert store.add(source(tmp_path, 10), SHAPES).description.revision == 11


def test_a_removed_revision_is_gone_and_its_readers_are_told(
    store: TaskStore, tmp_path: Path
) -> None:
    """An artifact opened before does not load something else."""
    added = store.add(source(tmp_path), SHAPES)

    remove(store, 1)

    with pytest.raises(ArtifactMissing):
        added.load_level(0, SHAPE)
    with pytest.raises(TaskNotInStore):
        store.open(revision_of(added).reference)


def test_a_crashed_writer_leaves_nothing_behind(store: TaskStore, tmp_path: Path) -> None:
    """Killed with its files staged: the next writer clears them away and is not blocked."""
    script = textwrap.dedent(
        f"""
        import os, signal, sys
        from pathlib import Path
        from tasks import store
        from tests.tasks.artifacts import SHAPES
        # The last step before the revision appears.
        store.sync_folder = lambda folder: os.kill(os.getpid(), signal.SIGKILL)
        store.TaskStore(Path({str(store.root)!r})).add(Path({str(source(tmp_path))!r}), SHAPES)
        """
    )
    killed = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[2])
    assert killed.returncode == -signal.SIGKILL
    assert [path.name for path in store.root.glob(".staging-*/task.json")] == ["task.json"]
    assert numbers(store) == []

    added = store.add(source(tmp_path), SHAPES)

    added.validate(SHAPES)
    assert added.description.revision == 1
    assert list(store.root.glob(".staging-*")) == []


def add_many(root: Path, folders: list[Path], barrier: threading.Barrier) -> list[int]:
    """Add folders one after the other, all processes at once."""
    barrier.wait(30)
    return [TaskStore(root).add(folder, SHAPES).description.revision for folder in folders]


def test_many_processes_add_at_once(store: TaskStore, tmp_path: Path) -> None:
    """Each content gets one revision, no number twice, every revision whole."""
    folders = [source(tmp_path, seed) for seed in range(6)]
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        barrier = manager.Barrier(4)
        with context.Pool(4) as pool:
            results = pool.starmap(
                add_many, [(store.root, folders[i:] + folders[:i], barrier) for i in range(4)]
            )

    by_folder = [
        dict(zip(folders[i:] + folders[:i], found, strict=True)) for i, found in enumerate(results)
    ]
    assert all(found == by_folder[0] for found in by_folder)
    assert sorted(by_folder[0].values()) == [1, 2, 3, 4, 5, 6]
    for folder, number in by_folder[0].items():
        artifact: Artifact = open_artifact(store.root, ("weather", str(number)))
        artifact.validate(SHAPES)
        assert artifact.description.levels == open_artifact(folder).description.levels


def test_readers_never_see_half_a_revision(store: TaskStore, tmp_path: Path) -> None:
    """Whatever is there loads or is gone, while another thread adds and removes."""
    folders = [source(tmp_path, seed) for seed in range(4)]
    enough = threading.Event()
    problems: list[Exception] = []

    def add_and_remove() -> None:
        try:
            while not enough.is_set():
                for folder in folders:
                    added = store.add(folder, SHAPES)
                    remove(store, added.description.revision)
        except Exception as error:  # noqa: BLE001 - reported by the main thread
            problems.append(error)

    writer = threading.Thread(target=add_and_remove)
    writer.start()
    num_loaded = 0
    while num_loaded < 20 and writer.is_alive():
        for number in numbers(store):
            with contextlib.suppress(ArtifactMissing):  # removed meanwhile
                open_artifact(store.root, ("weather", str(number))).validate(SHAPES)
                num_loaded += 1
    enough.set()
    writer.join()

    assert problems == []
    assert num_loaded >= 20
