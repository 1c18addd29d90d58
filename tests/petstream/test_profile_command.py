"""`petstream profile show`: what was measured, for people and for programs."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from petstream.commands.profile import app
from scheduler.profile_file import Profile, write_profile

PROFILE = Profile(
    backbone="minilm-l3",
    device="a processor",
    dtype="float32",
    threads=2,
    versions={"torch": "2"},
    commit="abc123",
    measured_at="2026-01-01T00:00:00+00:00",
    repeats=3,
    num_rows=(1, 8),
    seq_lens=(8, 64),
    alpha_ms=((1.0, 2.0), (3.0, 9.25)),
    beta_ms={"lora": ((0.1, 0.2), (0.3, 0.9))},
)


@pytest.fixture
def state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder of this test's own."""
    monkeypatch.setenv("PETSTREAM_STATE_DIR", str(tmp_path))
    return tmp_path


def test_nothing_measured_says_what_to_do(state_dir: Path) -> None:
    """It is a failure, not an empty table."""
    result = CliRunner().invoke(app, ["show"])

    assert result.exit_code == 1
    assert "run `petstream profile`" in result.stderr
    assert not list(state_dir.iterdir())


def test_what_was_measured_is_shown_with_where_it_is_from(state_dir: Path) -> None:
    """Device, dtype and commit stand beside the figures."""
    write_profile(PROFILE, state_dir / "profiles")

    result = CliRunner().invoke(app, ["show"])

    assert result.exit_code == 0
    for part in ("minilm-l3", "a processor", "float32", "abc123", "beta lora", "9.25"):
        assert part in result.stdout


def test_the_table_fits_a_terminal_unbroken(state_dir: Path) -> None:
    """A name or a figure that is broken over two lines cannot be read."""
    wide = ((1.0, 2.0, 171.95, 1063.93, 15313.44),) * 5
    measured = PROFILE.model_copy(
        update={
            "num_rows": (1, 4, 16, 64, 128),
            "seq_lens": (8, 16, 32, 64, 128),
            "alpha_ms": wide,
            "beta_ms": {"adapter": wide},
        }
    )
    write_profile(measured, state_dir / "profiles")

    lines = CliRunner().invoke(app, ["show"]).stdout.splitlines()

    assert "2026-01-01T00:00:00+00:00" in lines[0]
    assert sum("beta adapter" in line for line in lines) == 1
    assert sum("15313.44" in line for line in lines) == 10


def test_programs_get_one_document(state_dir: Path) -> None:
    """The same as in the files."""
    write_profile(PROFILE, state_dir / "profiles")

    result = CliRunner().invoke(app, ["show", "--json"])

    (shown,) = json.loads(result.stdout)["profiles"]
    assert Profile.model_validate(shown) == PROFILE


def test_a_damaged_file_is_named(state_dir: Path) -> None:
    """One line with the path, no traceback."""
    path = write_profile(PROFILE, state_dir / "profiles")
    path.write_text("{}")

    result = CliRunner().invoke(app, ["show"])

    assert result.exit_code == 1
    assert str(path) in result.stderr
