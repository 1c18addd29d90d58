"""`petstream profile show`: what was measured, for people and for programs."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from petstream.commands.profile import app
from scheduler.profile_file import Profile, read_profile, write_profile
from tests.kept_figures import VARIABLE
from workers import profiler
from workers.machine_figures import FILE_NAME, MachineFigures, read_figures

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
    monkeypatch.delenv(VARIABLE)
    return tmp_path


def test_nothing_measured_says_what_to_do(state_dir: Path) -> None:
    """It is a failure, not an empty table."""
    result = CliRunner().invoke(app, ["show"])

    assert result.exit_code == 1
    assert "run `petstream profile`" in result.stderr
    assert not list(state_dir.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_costs_no_figures(state_dir: Path) -> None:
    """It is told before anything is measured anew, or forgotten."""
    figures = MachineFigures(state_dir / FILE_NAME)
    figures.measured("linear", lambda: {"torch": 1.0})
    figures.save()

    result = CliRunner().invoke(app, ["--device", "cuda"])

    assert result.exit_code == 1
    assert "finds no CUDA device here" in result.stderr
    assert read_figures(state_dir / FILE_NAME) is not None


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


def test_the_ways_that_were_chosen_are_shown(state_dir: Path) -> None:
    """Which library multiplies each shape, what compiled operators take, and the break-evens."""
    figures = MachineFigures(state_dir / FILE_NAME)
    figures.measured("linear 384x384 bfloat16", lambda: {"torch": 5.25, "onednn-packed": 4.75})
    of_library = {"onednn": 3.5, "compiled": 3.25, "compiled-packed": 2.25}
    figures.measured("linear 96x384 float32 0123456789abcdef x86-64-v3", lambda: of_library)
    figures.measured("vectors 384 float32 v3", lambda: {"torch": 2.875, "compiled": 1.625})
    gains = {"few_rows_us": -10.0, "many_rows_us": 10.0}
    figures.measured("adapter 384 float32 torch", lambda: gains)
    figures.save()

    shown = CliRunner().invoke(app, ["show"])
    document = json.loads(CliRunner().invoke(app, ["show", "--json"]).stdout)

    assert shown.exit_code == 0
    for part in ("384x384 bfloat16", "5.25", "4.75", "adapter 384 float32 torch", "104"):
        assert part in shown.stdout
    (product,) = (line for line in shown.stdout.splitlines() if "96x384 float32" in line)
    assert product.index("2.25") < product.index("3.25") < product.index("3.50")
    (operator,) = (line for line in shown.stdout.splitlines() if "vectors 384 float32 v3" in line)
    assert operator.index("2.88") < operator.index("1.62")
    found = read_figures(state_dir / FILE_NAME)
    assert found is not None
    assert document["figures"] == found.model_dump()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_measuring_writes_a_profile_and_measures_the_ways_anew(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    monkeypatch.setattr(profiler, "NUM_ROWS", (1, 4))
    monkeypatch.setattr(profiler, "SEQ_LENS", (8, 16))
    old = MachineFigures(state_dir / FILE_NAME)
    old.measured("of before", lambda: {"torch": 1.0})
    old.save()

    ended = CliRunner().invoke(
        app, ["--backbone", "minilm-l3", "--threads", "1", "--repeats", "1", "--dtype", dtype]
    )

    assert ended.exit_code == 0, ended.output
    assert read_profile(state_dir / "profiles" / "minilm-l3.json").dtype == dtype
    found = read_figures(state_dir / FILE_NAME)
    assert found is not None
    assert "of before" not in found.figures
    assert any(name.startswith("linear ") and dtype in name for name in found.figures)
