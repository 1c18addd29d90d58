"""Profiles on disk: what is written is read, and what is no profile says so."""

import json
from pathlib import Path
from typing import Any

import pytest

from scheduler.profile_file import (
    Profile,
    ProfileError,
    read_profile,
    read_profiles,
    write_profile,
)


def _fields() -> dict[str, Any]:
    return {
        "backbone": "minilm-l3",
        "device": "a cpu",
        "dtype": "float32",
        "threads": 2,
        "versions": {"torch": "2"},
        "commit": "abc",
        "measured_at": "2026-01-01T00:00:00+00:00",
        "repeats": 3,
        "num_rows": [1, 8],
        "seq_lens": [8, 64],
        "alpha_ms": [[1.0, 2.0], [3.0, 9.0]],
        "beta_ms": {"lora": [[0.1, 0.2], [0.3, 0.9]]},
    }


def _profile(**changes: object) -> Profile:
    return Profile.model_validate(_fields() | changes)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    """What is written is read again."""
    path = write_profile(_profile(), tmp_path / "profiles")

    assert path.name == "minilm-l3.json"
    assert read_profile(path) == _profile()
    assert [p.name for p in path.parent.iterdir()] == ["minilm-l3.json"]


def test_its_cost_model_is_what_was_measured() -> None:
    """Its cost model is what was measured."""
    model = _profile().cost_model()

    assert float(model.alpha.at(8, 64)) == 9.0
    assert float(model.beta_of("lora").at(1, 64)) == 0.2


def test_a_folder_gives_all_its_profiles_and_a_missing_one_none(tmp_path: Path) -> None:
    """A folder gives all its profiles and a missing one none."""
    for backbone in ("minilm-l6", "hub/other", "minilm-l3"):
        write_profile(_profile(backbone=backbone), tmp_path)

    assert [p.backbone for p in read_profiles(tmp_path)] == ["hub/other", "minilm-l3", "minilm-l6"]
    assert read_profiles(tmp_path / "nowhere") == []


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"alpha_ms": [[1.0, 2.0]]},
        {"alpha_ms": [[1.0, "2"], [3.0, -9.0]]},
        {"num_rows": [8, 1]},
        {"beta_ms": {}},
        {"beta_ms": {"lora": [[1.0]]}},
        {"surprise": 1},
    ],
)
def test_what_is_no_profile_says_what_to_do(tmp_path: Path, changes: dict[str, object]) -> None:
    """What is no profile says what to do."""
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(_fields() | changes))

    with pytest.raises(ProfileError, match="profile"):
        read_profile(path)


def test_not_a_number_is_no_latency(tmp_path: Path) -> None:
    """Not a number is no latency."""
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(_fields()).replace("9.0", "NaN", 1))

    with pytest.raises(ProfileError):
        read_profile(path)


@pytest.mark.parametrize("content", ["", "{", "[]", "null"])
def test_other_files_are_no_profiles(tmp_path: Path, content: str) -> None:
    """Other files are no profiles."""
    path = tmp_path / "bad.json"
    path.write_text(content)

    with pytest.raises(ProfileError, match="not a profile"):
        read_profile(path)


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    """A missing file says how to make one."""
    with pytest.raises(ProfileError, match="run `petstream profile`"):
        read_profile(tmp_path / "none.json")
