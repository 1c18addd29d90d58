"""`petstream bench engine --resume`: a run that was ended goes on behind what it measured."""

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from petstream.benchmarks.engine.cases import LORA, MINILM, U4_8, U8_32, Case, Shape, full_cases
from petstream.benchmarks.engine.kept_cells import Conditions, KeptCells, KeptCellsError
from petstream.benchmarks.engine.measuring import Measured
from petstream.benchmarks.engine.suite import Suite
from petstream.commands.bench import app

TINY = Shape("tiny", layers=2, hidden=128, heads=4, intermediate=256, vocabulary=2000)
HERE = Conditions(
    commit="abc1234", device="a processor", versions={"python": "3.11.7"}, left_out={}, repeats=5
)
FULL_CASE = "bert-base/u32-128/256/lora-query-value/2t/float32"
CASE = Case(MINILM, U4_8, 4, LORA, ("ours", "bare"))


@pytest.fixture
def committed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the checkout have no changes, whoever works on it."""
    monkeypatch.setattr("petstream.benchmarks.engine.kept_cells.commit", lambda: "abc1234")


def cell_of(case: Case, *times_s: float) -> list[Measured]:
    ours = Measured(case, "ours", "a library 1", 100, 2.0, times_s, 1e-6, 1e6)
    return [ours, replace(ours, system="bare", max_difference=None, bytes_per_task=None)]


def test_a_case_is_found_again_as_it_was_measured(tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    KeptCells(path, HERE).keep(CASE, cell_of(CASE, 0.1, 0.2, 1 / 3))

    kept = KeptCells(path, HERE)

    assert kept.of(CASE) == cell_of(CASE, 0.1, 0.2, 1 / 3)
    assert kept.of(replace(CASE, mix=U8_32)) is None


def test_a_case_of_another_selection_is_another_case(tmp_path: Path) -> None:
    """`--curves` and `--full` have cases of one name with other rows, or with fewer systems."""
    path = tmp_path / "cases.jsonl"
    kept = KeptCells(path, HERE)
    kept.keep(CASE, cell_of(CASE, 1.0))
    more_rows = replace(CASE, rows=16)
    kept.keep(more_rows, cell_of(more_rows, 2.0))

    for found in (kept, KeptCells(path, HERE)):
        assert found.of(CASE) == cell_of(CASE, 1.0)
        assert found.of(more_rows) == cell_of(more_rows, 2.0)
        assert found.of(replace(CASE, systems=(*CASE.systems, "seqs"))) is None


def test_a_checkout_with_changes_is_refused(tmp_path: Path) -> None:
    """Two of them have one name and other code."""
    path = tmp_path / "cases.jsonl"

    with pytest.raises(KeptCellsError, match="commit them"):
        KeptCells(path, HERE.model_copy(update={"commit": "abc1234-dirty"}))

    assert not path.exists()


def test_a_line_that_was_cut_off_is_measured_again(tmp_path: Path) -> None:
    """A process that is killed while it writes leaves a part of a line."""
    path = tmp_path / "cases.jsonl"
    other = replace(CASE, mix=U8_32)
    kept = KeptCells(path, HERE)
    kept.keep(CASE, cell_of(CASE, 1.0))
    kept.keep(other, cell_of(other, 2.0))
    path.write_bytes(path.read_bytes()[:-20])

    kept = KeptCells(path, HERE)
    assert kept.of(CASE) is not None
    assert kept.of(other) is None
    kept.keep(other, cell_of(other, 3.0))

    assert KeptCells(path, HERE).of(other) == cell_of(other, 3.0)


def test_a_first_line_without_its_end_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    KeptCells(path, HERE)
    path.write_bytes(path.read_bytes()[:-1])

    KeptCells(path, HERE).keep(CASE, cell_of(CASE, 1.0))

    assert KeptCells(path, HERE).of(CASE) == cell_of(CASE, 1.0)


@pytest.mark.parametrize(
    ("there", "said"),
    [
        ({"commit": "def5678"}, "commit was def5678 and is abc1234"),
        ({"device": "another"}, "device was another and is a processor"),
        ({"left_out": {"peft-padded": "make bench-env"}}, "left_out was "),
        ({"repeats": 9}, "repeats was 9 and is 5"),
    ],
)
def test_figures_of_another_run_are_refused(
    tmp_path: Path, there: dict[str, object], said: str
) -> None:
    path = tmp_path / "cases.jsonl"
    KeptCells(path, Conditions.model_validate(HERE.model_dump() | there))

    with pytest.raises(KeptCellsError, match=said):
        KeptCells(path, HERE)


@pytest.mark.parametrize("line", [b"{}", b"not JSON", b'{"case": "a", "systems": [{}]}'])
def test_a_line_of_something_else_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "cases.jsonl"
    KeptCells(path, HERE)
    path.write_bytes(path.read_bytes() + line + b"\n")

    with pytest.raises(KeptCellsError, match=r"line 2 is not of `petstream bench engine --resume`"):
        KeptCells(path, HERE)
    assert line in path.read_bytes(), "a file that is not ours is left as it is"


@pytest.mark.parametrize("content", ["my notes\n", "my notes"])
def test_the_command_refuses_a_file_of_something_else(
    tmp_path: Path, content: str, committed: None
) -> None:
    path = tmp_path / "notes.txt"
    path.write_text(content)

    result = CliRunner().invoke(app, ["engine", "--full", "--resume", str(path)])

    assert result.exit_code == 1
    assert "notes.txt, line 1 is not of `petstream bench engine --resume`" in result.stderr
    assert path.read_text() == content


def test_the_command_measures_nothing_that_is_there(tmp_path: Path, committed: None) -> None:
    """Its figures are those of the file, to the last one."""
    path = tmp_path / "cases.jsonl"
    (case,) = (case for case in full_cases() if case.label == FULL_CASE)
    KeptCells(path, Conditions.of_this_run(5)).keep(case, cell_of(case, 0.5, 0.25, 0.125, 1.0, 2.0))

    result = CliRunner().invoke(
        app, ["engine", "--full", "--only", FULL_CASE, "--resume", str(path)]
    )

    assert result.exit_code == 0
    assert "1 of 1" in result.stdout
    assert "125.0" in result.stdout, "the least, in milliseconds"


@pytest.mark.slow
def test_a_run_that_was_ended_goes_on(tmp_path: Path) -> None:
    first = Case(TINY, U4_8, 2, LORA, ("ours", "bare"), rows=4)
    cases = [first, replace(first, mix=U8_32)]
    path = tmp_path / "cases.jsonl"
    run = Suite(tmp_path, Path("no-catalogue"), kept=KeptCells(path, HERE)).run(cases)
    measured = next(run)
    run.close()

    again = Suite(tmp_path, Path("no-catalogue"), kept=KeptCells(path, HERE)).run(cases)
    cells = list(again)

    assert cells[0] == measured, "not measured again"
    assert [cell[0].case.mix for cell in cells] == [U4_8, U8_32]
    assert KeptCells(path, HERE).of(cases[1]) == cells[1]
