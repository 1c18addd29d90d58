"""From one task event to the next: what each command may and may not do."""

from dataclasses import replace
from pathlib import Path

import pytest

from messages.limits import MAX_MAP_ITEMS, MAX_TASK_EVENT_BYTES
from messages.task_event import TaskEvent, TaskLevel, TaskReference, TaskRevision
from messages.task_event_codec import decode_task_event, encode_task_event
from tasks.errors import (
    BadAlias,
    RevisionConflict,
    TaskIsRetired,
    TooManyRevisions,
    UnknownRevision,
    UnknownTask,
)
from tasks.registry import MAX_REVISIONS, add_revision, retire, revision_of, set_alias
from tests.tasks.artifacts import PETS, trained_level, write


def revision(number: int, digest: str = "ab", num_levels: int = 1) -> TaskRevision:
    """Return a revision of the task `weather`."""
    return TaskRevision(
        reference=TaskReference("weather", number, "sha256:" + digest * 32),
        kind="single_label",
        num_outputs=3,
        takes_pair=False,
        levels=tuple(TaskLevel(level, "minilm-l3", "lora", 128) for level in range(num_levels)),
    )


def event(*numbers: int, retired: bool = False) -> TaskEvent:
    """Return the event of a task with these revisions."""
    return TaskEvent("weather", retired, tuple(revision(number) for number in numbers))


def numbers(found: TaskEvent) -> list[int]:
    """Return the revisions of an event."""
    return [known.reference.revision for known in found.revisions]


def test_a_revision_says_what_the_artifact_says(tmp_path: Path) -> None:
    """The event's fields come from the description and the digest of its bytes."""
    artifact = write(
        tmp_path / "a", trained_level(PETS["mask"]), trained_level(PETS["diff"], level=1)
    )

    found = revision_of(artifact)

    assert found == TaskRevision(
        reference=TaskReference("weather", 1, artifact.digest),
        kind="single_label",
        num_outputs=3,
        takes_pair=False,
        levels=(TaskLevel(0, "tiny", "mask", 32), TaskLevel(1, "tiny", "diff", 32)),
    )


def test_a_revision_says_what_becomes_of_long_texts(tmp_path: Path) -> None:
    """The scheduler, which cuts them, knows only the event."""
    level = replace(trained_level(), truncation="refuse")

    found = revision_of(write(tmp_path / "a", level))

    assert [known.truncation for known in found.levels] == ["refuse"]


def test_the_first_revision_makes_the_task() -> None:
    """Serving, without aliases."""
    assert add_revision(None, revision(1)) == event(1)


def test_the_newest_revision_is_the_default() -> None:
    """Ascending, whatever the order of registration."""
    assert numbers(add_revision(event(1, 2), revision(3))) == [1, 2, 3]
    assert numbers(add_revision(event(1, 3), revision(2))) == [1, 2, 3]


def test_adding_twice_is_as_adding_once() -> None:
    """A command that was interrupted may be run again."""
    assert add_revision(event(1, 2), revision(1)) == event(1, 2)


def test_adding_brings_a_retired_task_back() -> None:
    """With all its revisions and aliases."""
    retired = retire(set_alias(event(1, 2), "weather", "stable", 1), "weather")

    back = add_revision(retired, revision(2))

    assert not back.retired
    assert numbers(back) == [1, 2]
    assert back.aliases == (("stable", 1),)


def test_a_revision_does_not_change_its_content() -> None:
    """Queries in flight name it by number."""
    with pytest.raises(RevisionConflict, match="weather@2"):
        add_revision(event(1, 2), revision(2, digest="cd"))


def test_an_alias_is_set_and_moved() -> None:
    """Sorted, each once."""
    found = set_alias(event(1, 2), "weather", "stable", 1)
    found = set_alias(found, "weather", "canary", 2)
    found = set_alias(found, "weather", "stable", 2)

    assert found.aliases == (("canary", 2), ("stable", 2))


def test_an_alias_needs_its_revision() -> None:
    """With those there are."""
    with pytest.raises(UnknownRevision, match="choose one of 1, 2"):
        set_alias(event(1, 2), "weather", "stable", 3)


@pytest.mark.parametrize("alias", ["", "2", "2nd", "Stable", "a b", "a:b", "a@1", "a\n", "a" * 65])
def test_an_alias_is_a_name(alias: str) -> None:
    """No numbers: `weather:2` would read like revision 2."""
    with pytest.raises(BadAlias):
        set_alias(event(1), "weather", alias, 1)


def test_aliases_are_as_many_as_an_event_can_hold() -> None:
    """One more would make the event undecodable for everybody."""
    found = event(1)
    for number in range(MAX_MAP_ITEMS):
        found = set_alias(found, "weather", f"a{number}", 1)

    with pytest.raises(BadAlias, match="64"):
        set_alias(found, "weather", "one-more", 1)
    assert decode_task_event(encode_task_event(found).value).aliases == found.aliases
    assert set_alias(found, "weather", "a3", 1) == found


def test_revisions_are_as_many_as_an_event_can_hold() -> None:
    """At the most levels there can be, the fullest event still fits."""
    full = TaskEvent(
        "weather",
        retired=False,
        revisions=tuple(revision(n, num_levels=8) for n in range(1, MAX_REVISIONS + 1)),
    )

    with pytest.raises(TooManyRevisions, match="another name"):
        add_revision(full, revision(MAX_REVISIONS + 1))
    value = encode_task_event(full).value
    assert len(value) < MAX_TASK_EVENT_BYTES
    assert decode_task_event(value) == full
    assert add_revision(full, revision(1, num_levels=8)) == full


def test_retiring_keeps_what_is_known() -> None:
    """So that escalated queries still find their revision, and adding brings all back."""
    found = retire(event(1, 2), "weather")

    assert found == event(1, 2, retired=True)
    assert retire(found, "weather") == found


def test_a_retired_task_gets_no_alias() -> None:
    """It would name nothing that serves."""
    with pytest.raises(TaskIsRetired):
        set_alias(event(1, retired=True), "weather", "stable", 1)


def test_an_unknown_task_is_told() -> None:
    """With the command that lists those there are."""
    with pytest.raises(UnknownTask, match="petstream tasks list"):
        retire(None, "weather")
    with pytest.raises(UnknownTask, match="'weather'"):
        set_alias(None, "weather", "stable", 1)
