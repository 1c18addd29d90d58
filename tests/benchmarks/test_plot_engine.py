"""The plots of `petstream bench engine --curves`: what they show, from what, and every refusal."""

import json
import sys
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from benchmarks.engine_document import (
    COMMAND,
    DocumentError,
    Point,
    cells_of,
    crossings,
    lines,
    read_document,
)
from benchmarks.engine_figure import COLOURS
from benchmarks.plot_engine import draw_all, main, verdict
from petstream.benchmarks.document import make_document
from petstream.benchmarks.engine.cases import (
    KINDS,
    LIBRARY_OF,
    MIXES,
    Case,
    draw_rows,
    in_bfloat16,
    short_cases,
)
from petstream.benchmarks.engine.curves import cases_over_tasks, curve_cases
from petstream.benchmarks.engine.measuring import Measured, different_systems
from petstream.benchmarks.engine.suite import as_row
from petstream.commands.bench import app

SLOW_MACHINE = (1.0, 1.3, 1.1, 1.2, 1.0)
"""How long its passes take beside the least."""


def measured(case: Case) -> list[Measured]:
    """Return a case on a machine where each model that is run takes a millisecond to start."""
    rows = draw_rows(case)
    tokens = sum(len(ids) for ids in rows.token_ids)
    found = []
    for number, system in enumerate(different_systems(case.systems, rows)):
        starts = case.tasks if LIBRARY_OF[system].endswith("_models") or system == "seqs" else 1
        seconds = 0.001 * starts + 1e-4 * tokens * (1 - 0.02 * number)
        # What slows a pass of one system does not slow that of the next.
        slowed = [*SLOW_MACHINE[number % 5 :], *SLOW_MACHINE[: number % 5]]
        library = f"{LIBRARY_OF[system]} 1.2, torch 3.4"
        times_s = tuple(seconds * slow for slow in slowed)
        found.append(Measured(case, system, library, tokens, 1.0, times_s, 0.0, 1e6))
    return found


def document_of(cases: Sequence[Case], left_out: dict[str, str] | None = None) -> dict[str, Any]:
    """Return the command's document, as of one machine and commit."""
    cells = [measured(case) for case in cases]
    rows = [as_row(one, cell) for cell in cells for one in cell]
    setup = {"repeats": 5, "clock": "CPU time", "left_out": left_out or {}}
    known = {"command": COMMAND, "commit": "abc1234", "device": "A $CPU$ <1>, 2 cores"}
    return make_document(rows, []) | known | {"setup": setup}


def written(document: dict[str, Any], folder: Path) -> Path:
    path = folder / "engine.json"
    path.write_text(json.dumps(document))
    return path


def text_of(svg: Path) -> str:
    """Return what can be read in a plot, whatever line it is on."""
    return " ".join(" ".join(ET.parse(svg).getroot().itertext()).split())


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(document_of(curve_cases()), tmp_path_factory.mktemp("measured"))


@pytest.fixture(scope="module")
def plots(path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("plots") / "made" / "here"
    return {plot.name: plot for plot in draw_all(read_document(path), folder)}


def test_a_document_gives_three_plots_of_text_and_lines(plots: dict[str, Path]) -> None:
    assert [*plots] == ["tasks-float32.svg", "tokens-float32.svg", "kinds-float32.svg"]
    for plot in plots.values():
        assert ET.parse(plot).getroot().tag == "{http://www.w3.org/2000/svg}svg"
        assert plot.stat().st_size < 100_000


def test_a_second_run_gives_the_same_bytes(
    path: Path, plots: dict[str, Path], tmp_path: Path
) -> None:
    again = list(draw_all(read_document(path), tmp_path))

    assert [plot.read_bytes() for plot in again] == [plot.read_bytes() for plot in plots.values()]


def test_plots_name_every_system(plots: dict[str, Path]) -> None:
    everyone = {system for case in cases_over_tasks() for system in case.systems}
    tasks, tokens = (text_of(plots[f"{name}-float32.svg"]) for name in ("tasks", "tokens"))

    assert not [system for system in everyone - {"peft-padded"} if system not in tasks]
    assert "peft-padded" not in tasks, "it was run at one number of tasks only, which is no line"
    one_way = ("ours", "bare", "seqs", "transformers-padded", "onnxruntime-rows", "openvino-rows")
    assert not [system for system in (*one_way, "peft-padded") if system not in tokens]
    assert "sorted-8" not in tokens, "with one row to a task the ways to batch are one"


def test_plots_name_every_place(plots: dict[str, Path]) -> None:
    tasks, tokens, kinds = (text_of(plot) for plot in plots.values())

    assert "1 64 4 16 16 4 64 1 256 1" in tasks
    assert "U(4, 8)" in tokens
    assert all(f"({mix.first}, {mix.second})" in tokens for mix in MIXES)
    names = [kind.replace("-", " ", 1) for kind in KINDS]
    assert not [name for name in (*names, "mix of four", "bare", "ours") if name not in kinds]
    assert "U(4, 8) tokens U(8, 32) tokens U(64, 128) tokens" in kinds


def test_every_plot_says_where_on_what_and_how_it_was_measured(plots: dict[str, Path]) -> None:
    for plot in plots.values():
        text = text_of(plot)
        said = (
            *("A $CPU$ <1>, 2 cores", "float32", "1 thread;", "medians of 5 passes", "CPU time"),
            *("python 3.", "petstream_engine 1.2, torch 3.4", "abc1234", f"`{COMMAND}`"),
        )
        assert not [words for words in said if words not in text], plot


def test_what_was_not_built_is_named(tmp_path: Path) -> None:
    left_out = {"openvino-rows": "make bench-env", "openvino-sorted-8": "make bench-env"}
    document = document_of(curve_cases(), left_out=left_out)
    document["rows"] = [row for row in document["rows"] if row["system"] not in left_out]

    tasks, *_ = draw_all(read_document(written(document, tmp_path)), tmp_path)

    assert "left out: openvino-rows, openvino-sorted-8." in text_of(tasks)
    assert "openvino-rows: ours" not in text_of(tasks)


@pytest.mark.slow
def test_each_type_has_plots_of_its_own(tmp_path: Path) -> None:
    document = document_of([*curve_cases(), *in_bfloat16(curve_cases())])

    found = [*draw_all(read_document(written(document, tmp_path)), tmp_path)]

    names = [f"{n}-{d}.svg" for d in ("float32", "bfloat16") for n in ("tasks", "tokens", "kinds")]
    assert [plot.name for plot in found] == names
    tokens = text_of(tmp_path / "tokens-bfloat16.svg")
    assert "; bfloat16;" in tokens
    assert "peft32-padded" in tokens
    assert "onnxruntime" not in tokens


def test_a_line_is_the_median_of_passes_side_by_side(path: Path) -> None:
    """As the document itself has it."""
    document = read_document(path)
    rows = json.loads(path.read_text())["rows"]
    cells = cells_of(document, cases_over_tasks(), "float32")

    for system, points in lines(cells, lambda cell: float(cell.case.tasks)).items():
        for point, cell in zip(points, cells, strict=True):
            same = [r for r in rows if r["case"] == cell.case.label and r["system"] == system]
            if same and system != "ours":
                assert point.ratio == same[0]["ours_is_faster"]
                assert point.queries_per_s == same[0]["queries_per_s"]


def test_a_way_to_batch_goes_on_where_it_is_the_other_one(path: Path) -> None:
    """The run leaves out what would only do the same again."""
    cells = cells_of(read_document(path), cases_over_tasks(), "float32")

    found = lines(cells, lambda cell: float(cell.case.tasks))

    assert "transformers-sorted-8" not in cells[-1].rows
    padded, eights = found["transformers-padded"], found["transformers-sorted-8"]
    assert [point.x for point in eights] == [1, 4, 16, 64, 256]
    assert eights[2:] == padded[2:]
    assert eights[0] != padded[0]


@pytest.mark.parametrize(
    ("ratios", "places", "said"),
    [
        ((2.0, 3.0), [], "ours faster throughout"),
        ((0.9, 0.5), [], "ours slower throughout"),
        ((0.5, 2.0), [8.0], "ours faster above 8 tasks"),
        ((2.0, 0.5, 0.25), [8.0], "ours faster below 8 tasks"),
        ((0.5, 2.0, 0.5), [8.0, 32.0], "even at 8, 32 tasks"),
        ((0.5, 1.0, 2.0), [16.0], "ours faster above 16 tasks"),
    ],
)
def test_where_a_line_crosses_one_is_named(
    ratios: Sequence[float], places: list[float], said: str
) -> None:
    points = [Point(4.0 ** (number + 1), 1.0, [ratio]) for number, ratio in enumerate(ratios)]

    assert crossings(points) == pytest.approx(places)
    assert verdict(points, "tasks") == said


def test_every_system_of_a_curve_has_a_colour() -> None:
    cases = [*cases_over_tasks(), *in_bfloat16(curve_cases())]

    libraries = {system.partition("-")[0] for case in cases for system in case.systems}
    assert libraries - {"gemm"} <= {*COLOURS}


def test_a_document_of_other_cases_is_refused_with_the_command(tmp_path: Path) -> None:
    """The short form shares eleven of the cases; a part is not drawn as if it were the whole."""
    short = written(document_of(short_cases()), tmp_path)

    with pytest.raises(DocumentError, match=r"lacks 21 of the 32 cases .*/n32-8/1/.* --curves"):
        read_document(short)


def broken(document: dict[str, Any], name: str) -> bytes:
    """Return a file that is no document of the curves."""
    if name == "empty":
        document["rows"] = []
    elif name == "few-times":
        document["rows"][0]["times_s"].pop()
    elif name == "no-setup":
        del document["setup"]
    elif name == "no-json":
        return b"minilm-l6: 64 queries"
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("empty", "lacks 32 of the 32 cases of the curves"),
        ("few-times", f"is not what `{COMMAND}` prints: the document: Value error, ours in"),
        ("no-setup", f"is not what `{COMMAND}` prints: setup: Field required"),
        ("no-json", f"is not what `{COMMAND}` prints: the document: Invalid JSON"),
        ("no-file", "cannot be read: No such file or directory"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_one_line(
    name: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "engine.json"
    if name != "no-file":
        path.write_bytes(broken(document_of(curve_cases()[:1]), name))
    monkeypatch.setattr(sys, "argv", ["plot_engine.py", str(path), str(tmp_path / "plots")])

    with pytest.raises(SystemExit) as ended:
        main()

    message = str(ended.value.code)
    assert message.startswith(f"plot_engine: {path} {said}")
    assert "\n" not in message
    assert not (tmp_path / "plots").exists()


def test_the_script_names_what_it_wrote(
    path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["plot_engine.py", str(path), str(tmp_path)])

    main()

    assert capsys.readouterr().out.split() == [
        str(tmp_path / f"{name}-float32.svg") for name in ("tasks", "tokens", "kinds")
    ]


def test_a_folder_that_cannot_be_made_is_named(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = tmp_path / "plots"
    taken.write_text("a file")
    monkeypatch.setattr(sys, "argv", ["plot_engine.py", str(path), str(taken)])

    with pytest.raises(SystemExit, match=f"plot_engine: .*File exists.*{taken}"):
        main()


@pytest.mark.slow
def test_the_command_writes_what_the_script_reads(tmp_path: Path) -> None:
    """One small case of the curves, really run: only the others are missed."""
    only = "minilm-l6/u4-8/16/bitfit"
    ran = CliRunner().invoke(
        app, ["engine", "--curves", "--json", "--dtype", "float32", "--only", only]
    )
    assert ran.exit_code == 0, ran.stderr
    path = tmp_path / "engine.json"
    path.write_text(ran.stdout)

    with pytest.raises(DocumentError, match="lacks 31 of the 32 cases"):
        read_document(path)
