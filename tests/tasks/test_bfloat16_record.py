"""`bfloat16.json`: it says of the very weights beside it, and it can be wrong without any harm."""

from pathlib import Path

import pytest

from tasks.artifact import Artifact, open_artifact
from tasks.bfloat16_record import (
    MAX_DIFFERENCE,
    MAX_RECORD_BYTES,
    MIN_SAME_ANSWERS,
    RECORD_FILE,
    LevelComparison,
    comparison_of,
    comparisons_of,
    write_record,
)
from tasks.store import TaskStore
from tests.tasks.artifacts import PETS, SHAPES, trained_level, write


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    """A task of one level, which says nothing of bfloat16."""
    return write(tmp_path / "task", trained_level(PETS["lora"]))


def comparison(artifact: Artifact, **changed: object) -> LevelComparison:
    """Return a comparison of its level that passes, but for what is changed."""
    level = artifact.description.level(0)
    fields = {
        "level": 0,
        "sha256": level.sha256,
        "backbone": level.backbone.digest,
        "num_rows": 64,
        "rows_from": "sample.jsonl",
        "same_answers": 1.0,
        "largest_difference": 0.05,
        "deviation": 2.0,
        "largest_confidence_difference": 0.01,
    }
    return LevelComparison.model_validate(fields | changed)


def test_what_is_written_is_read(artifact: Artifact) -> None:
    """And a later record takes its place, also behind a crash."""
    for rows in (3, 64):
        (artifact.folder / f".{RECORD_FILE}.partial").write_text("left behind")
        write_record(artifact.folder, [comparison(artifact, num_rows=rows)])

        found = comparison_of(open_artifact(artifact.folder), 0)

        assert found == comparison(artifact, num_rows=rows)


@pytest.mark.parametrize(
    ("changed", "passes"),
    [
        ({}, True),
        ({"same_answers": MIN_SAME_ANSWERS}, True),
        ({"same_answers": MIN_SAME_ANSWERS - 0.01}, False),
        ({"largest_difference": 2.0 * MAX_DIFFERENCE}, True),
        ({"largest_difference": 2.0 * MAX_DIFFERENCE + 0.01}, False),
        ({"deviation": 0.0, "largest_difference": 0.0}, True),
        ({"deviation": 0.0}, False),
    ],
)
def test_a_level_passes_by_answers_and_logits(
    artifact: Artifact, changed: dict[str, object], passes: bool
) -> None:
    assert comparison(artifact, **changed).passes == passes


@pytest.mark.parametrize("changed", [{"sha256": "0" * 64}, {"backbone": "sha256:" + "0" * 64}])
def test_a_record_of_other_weights_says_nothing(
    artifact: Artifact, changed: dict[str, object]
) -> None:
    """Of a task that was trained again, or on another backbone."""
    write_record(artifact.folder, [comparison(artifact, **changed)])

    assert comparison_of(artifact, 0) is None
    assert comparisons_of(artifact) == []


def test_a_task_without_a_record_was_not_compared(
    artifact: Artifact, caplog: pytest.LogCaptureFixture
) -> None:
    """Which is nothing to log."""
    assert comparison_of(artifact, 0) is None
    assert not caplog.records


@pytest.mark.parametrize(
    "contents", [b"", b"{", b"[]", b'{"format": 2, "levels": []}', b" " * (MAX_RECORD_BYTES + 1)]
)
def test_a_record_that_cannot_be_read_is_ignored_and_logged(
    artifact: Artifact, contents: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """The task is served without it."""
    (artifact.folder / RECORD_FILE).write_bytes(contents)

    assert comparison_of(artifact, 0) is None
    assert "ignored" in caplog.text


def test_a_record_behind_a_link_is_ignored(artifact: Artifact, tmp_path: Path) -> None:
    write_record(tmp_path, [comparison(artifact)])
    (artifact.folder / RECORD_FILE).symlink_to(tmp_path / RECORD_FILE)

    assert comparison_of(artifact, 0) is None


def test_the_store_keeps_a_record_beside_the_task(artifact: Artifact, tmp_path: Path) -> None:
    """Also of a revision that it held before; the task's digest stays."""
    store = TaskStore(tmp_path / "store")
    stored = store.add(artifact.folder, SHAPES)

    store.record_comparison(stored, [comparison(artifact)])

    again = store.add(artifact.folder, SHAPES)
    assert again.digest == stored.digest
    assert comparisons_of(again) == [comparison(artifact)]
