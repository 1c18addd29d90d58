"""`petstream bench engine`: the packed engine beside its peers."""

import tempfile
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from petstream.output import console, error_console, fail, print_json
from petstream.settings import load_settings

if TYPE_CHECKING:
    from petstream.benchmarks.engine.cases import Case
    from petstream.benchmarks.engine.measuring import Measured
    from workers.processor import Processor


def engine(
    full: Annotated[
        bool, typer.Option("--full", help="Every case: hours. Else those of the goals.")
    ] = False,
    curves: Annotated[
        bool,
        typer.Option(
            "--curves",
            help="The cases of the curves over tasks, tokens and kinds, which "
            "benchmarks/plot_engine.py draws: a quarter of an hour.",
        ),
    ] = False,
    only: Annotated[
        str,
        typer.Option(
            help="Only cases with this in their name, such as minilm-l6/n32-8/64; * stands for "
            "anything: minilm-l6/*/2t."
        ),
    ] = "",
    repeats: Annotated[int, typer.Option(min=5, help="Timed passes of every system.")] = 5,
    dtype: Annotated[
        list[str] | None,
        typer.Option(
            help="float32, bfloat16 or both; default: float32, and both where the processor "
            "multiplies bfloat16."
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            help="Keep each case in this file as soon as it is measured, and go on behind those "
            "that an ended run left there.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document; tables go to standard error.")
    ] = False,
) -> None:
    """Compare the packed engine with transformers, PEFT, AdapterHub, ONNX Runtime and OpenVINO.

    Every system's answers are checked before it is timed. `make bench-env` builds the peers'
    environments; peers without one are left out.

    Example: petstream bench engine --json > engine.json

    Example: petstream bench engine --full --resume cases.jsonl --json > engine.json
    """
    try:
        from petstream.benchmarks.document import make_document
        from petstream.benchmarks.engine.children import SystemFailed
        from petstream.benchmarks.engine.environments import left_out
        from petstream.benchmarks.engine.goals import judge
        from petstream.benchmarks.engine.kept_cells import Conditions, KeptCells, KeptCellsError
        from petstream.benchmarks.engine.measuring import AnswersDifferError
        from petstream.benchmarks.engine.report import case_table, goals_table
        from petstream.benchmarks.engine.suite import Suite, as_row
        from workers.errors import BackboneError
        from workers.processor import this_processor
    except ModuleNotFoundError as error:
        fail(f"measuring needs the engine ({error.name} is missing): pip install petstream[worker]")
    processor = this_processor()
    cases = _cases(_selection(full=full, curves=curves), processor, dtype, only)
    missing = left_out(list(dict.fromkeys(s for case in cases for s in case.systems)))
    on = error_console if as_json else console
    cells: list[list[Measured]] = []
    with tempfile.TemporaryDirectory(prefix="petstream-bench-") as folder:
        try:
            kept = KeptCells(resume, Conditions.of_this_run(repeats)) if resume else None
            suite = Suite(Path(folder), load_settings().models_dir, repeats, kept)
            for number, cell in enumerate(suite.run(cases), start=1):
                cells.append(cell)
                on.print(f"{number} of {len(cases)}", case_table(cell))
        except (BackboneError, SystemFailed, AnswersDifferError, KeptCellsError, OSError) as error:
            fail(str(error))
    goals = judge([one for cell in cells for one in cell], processor.vendor)
    on.print(goals_table(goals, processor.vendor, missing))
    if as_json:
        rows = [as_row(one, cell) for cell in cells for one in cell]
        print_json(make_document(rows, goals) | {"setup": _setup(processor, repeats, missing)})


def _selection(*, full: bool, curves: bool) -> "list[Case]":
    from petstream.benchmarks.engine.cases import full_cases, short_cases
    from petstream.benchmarks.engine.curves import curve_cases

    if full and curves:
        fail("--full and --curves each choose the cases: give one of them", code=2)
    if curves:
        return curve_cases()
    return full_cases() if full else short_cases()


def _cases(
    selection: "list[Case]", processor: "Processor", dtypes: list[str] | None, only: str
) -> "list[Case]":
    from petstream.benchmarks.engine.cases import in_bfloat16

    chosen = dtypes or ["float32", *(["bfloat16"] if processor.has_bfloat16 else [])]
    if unknown := set(chosen) - {"float32", "bfloat16"}:
        fail(f"--dtype is float32 or bfloat16, not {', '.join(sorted(unknown))}", code=2)
    by_dtype = {"float32": selection, "bfloat16": in_bfloat16(selection)}
    found = [
        case for name in chosen for case in by_dtype[name] if fnmatchcase(case.label, f"*{only}*")
    ]
    if not found:
        fail(f"no case has {only!r} in its name; --full and --curves have others", code=2)
    return found


def _setup(processor: "Processor", repeats: int, missing: dict[str, str]) -> dict[str, Any]:
    from petstream.benchmarks.engine.cases import DISTINCT_WEIGHTS, REFERENCE
    from petstream.benchmarks.engine.measuring import TOLERANCES

    return {
        "goals_of": processor.vendor,
        "repeats": repeats,
        "clock": "CPU time of the process with one thread, wall time with more",
        "distinct_weights": DISTINCT_WEIGHTS,
        "reference": f"{REFERENCE} in float32",
        "tolerances": TOLERANCES,
        "left_out": missing,
    }
