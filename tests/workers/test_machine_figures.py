"""Figures of this machine: each is measured once, and those of another machine are not believed."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from workers import machine_figures
from workers.machine_figures import MachineFigures, read_figures, this_machine

LIMIT_S = 20.0


def refuse() -> dict[str, float]:
    raise AssertionError("measured again")


def giving(us: float) -> Callable[[], dict[str, float]]:
    return lambda: {"one": us}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """In a folder that is not there yet."""
    return tmp_path / "state" / "figures.json"


def test_a_figure_is_measured_once_per_machine(path: Path) -> None:
    first = MachineFigures(path)
    assert first.measured("product", giving(3.0)) == {"one": 3.0}
    assert first.measured("product", refuse) == {"one": 3.0}
    first.save()

    assert MachineFigures(path).measured("product", refuse) == {"one": 3.0}


@pytest.mark.parametrize("changed", ["processor", "torch", "petstream"])
def test_figures_of_another_machine_are_measured_anew_and_replaced(
    path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    other = {**this_machine(), changed: "another"}
    with monkeypatch.context() as patched:
        patched.setattr(machine_figures, "this_machine", lambda: other)
        elsewhere = MachineFigures(path)
        elsewhere.measured("product", giving(1.0))
        elsewhere.save()

    here = MachineFigures(path)
    assert here.measured("product", giving(2.0)) == {"one": 2.0}
    here.save()

    found = read_figures(path)
    assert found is not None
    assert found.machine == this_machine()
    assert found.figures == {"product": {"one": 2.0}}


def test_one_measures_at_a_time_and_the_others_take_its_figures(path: Path) -> None:
    """Two that measure at once would disturb each other, and could choose otherwise."""
    first, second = MachineFigures(path), MachineFigures(path)
    first.measured("a", giving(1.0))
    with ThreadPoolExecutor(1) as other:
        waiting = other.submit(second.measured, "a", refuse)
        with pytest.raises(TimeoutError):
            waiting.result(0.2)

        first.save()

        assert waiting.result(LIMIT_S) == {"one": 1.0}
    second.measured("b", giving(2.0))
    second.save()
    assert MachineFigures(path).measured("b", refuse) == {"one": 2.0}


def test_nobody_waits_for_ever_for_another(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It may have been stopped; what it measured meanwhile is kept nevertheless."""
    monkeypatch.setattr(machine_figures, "_LONGEST_WAIT_S", 0.1)
    ours, theirs = MachineFigures(path), MachineFigures(path)
    ours.measured("a", giving(1.0))
    theirs.measured("b", giving(2.0))
    theirs.measured("c", giving(3.0))
    assert caplog.text.count("for too long") == 1  # nor for each figure again

    ours.save()
    theirs.save()

    found = read_figures(path)
    assert found is not None
    assert found.figures == {"a": {"one": 1.0}, "b": {"one": 2.0}, "c": {"one": 3.0}}


@pytest.mark.parametrize("contents", ["", "{", "[]", '{"machine": {}, "figures": {"a": 1}}', "NaN"])
def test_a_file_that_says_nothing_is_replaced(path: Path, contents: str) -> None:
    path.parent.mkdir()
    path.write_text(contents)

    figures = MachineFigures(path)
    figures.measured("a", giving(1.0))
    figures.save()

    assert json.loads(path.read_text())["figures"] == {"a": {"one": 1.0}}


def test_a_folder_that_cannot_be_written_costs_only_the_next_start_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    figures = MachineFigures(tmp_path / "file" / "figures.json")
    figures.measured("a", giving(1.0))

    figures.save()

    assert "not kept" in caplog.text
