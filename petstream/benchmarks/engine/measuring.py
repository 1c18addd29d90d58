"""One case: its systems are built, held to the merged models' answers, then timed in turn."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from petstream.benchmarks.engine.cases import (
    FLOAT32_SYSTEMS,
    LIBRARY_OF,
    REFERENCE,
    WITHOUT_ANSWERS,
    Case,
    Dtype,
    Rows,
    draw_rows,
)
from petstream.benchmarks.engine.children import ChildProcess, Children
from petstream.benchmarks.engine.row_batches import batches_by_task
from petstream.benchmarks.engine.system import Logits
from petstream.benchmarks.engine.weight_files import write_rows

TOLERANCES: dict[Dtype, float] = {"float32": 1e-4, "bfloat16": 0.05}
"""The largest difference from the merged float32 models' logits: in float32 absolute, in bfloat16
as a share of the largest logit."""


class AnswersDifferError(Exception):
    """A system does not answer as the merged models do, so its time means nothing."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One system in one case."""

    case: Case
    system: str
    library: str
    num_tokens: int
    gigaflop: float
    """Useful work of one pass, the tasks' own operators left out."""
    times_s: tuple[float, ...]
    """Of each pass: CPU time with one thread, wall time with more."""
    max_difference: float | None
    """Of its logits from the merged models'; None of what answers nothing."""
    bytes_per_task: float | None

    @property
    def median_s(self) -> float:
        """Return the median of its passes."""
        return statistics.median(self.times_s)

    def speed_over(self, other: "Measured") -> float:
        """Return how many times as fast as another it is: the median over passes side by side."""
        pairs = zip(other.times_s, self.times_s, strict=True)
        return statistics.median(theirs / own for theirs, own in pairs)


def ours_is_faster(one: Measured, cell: Sequence[Measured]) -> float | None:
    """Return how many times as fast as another system ours is; None where that means nothing."""
    ours = next((other for other in cell if other.system == "ours"), None)
    return None if ours is None or one.system in ("ours", "gemm") else ours.speed_over(one)


def measure(case: Case, weights: Path, children: Children, repeats: int) -> list[Measured]:
    """Run a case.

    Args:
        case: With the systems to run; those whose batches are another's are left out.
        weights: Folder of `weight_files`.
        children: Where systems run.
        repeats: Timed passes of each.

    Raises:
        SystemFailed: If a system cannot be built or run.
        AnswersDifferError: If one answers otherwise than the merged models.
    """
    rows = draw_rows(case)
    rows_path = weights / "rows.safetensors"
    write_rows(rows, rows_path)
    systems = different_systems(case.systems, rows)
    try:
        processes = {s: children.of(LIBRARY_OF[s], case.threads) for s in systems}
        built = {s: _build(case, s, weights, rows_path, processes[s]) for s in systems}
        expected = _reference_logits(case, weights, rows_path, children)
        # The pass whose answers are checked is each system's warm-up as well.
        differences = {
            s: check_answers(case, s, processes[s].ask("logits", system=s)["logits"], expected)
            for s in systems
        }
        times_s = _timed_in_turn(processes, repeats, "cpu_s" if case.threads == 1 else "wall_s")
    finally:
        children.drop_all()
    lens = [len(ids) for ids in rows.token_ids]
    return [
        Measured(
            case=case,
            system=system,
            library=built[system]["library"],
            num_tokens=sum(lens),
            gigaflop=case.shape.gigaflop(lens),
            times_s=tuple(times_s[system]),
            max_difference=differences[system],
            bytes_per_task=built[system]["bytes_per_task"],
        )
        for system in systems
    ]


def different_systems(systems: Sequence[str], rows: Rows) -> list[str]:
    """Return the systems without those that would only do again what an earlier one does.

    With one row to a task, all ways of batching whole models are one; with up to eight, padding
    them together and sorting them in eights are.
    """
    seen = set()
    found = []
    for system in systems:
        _, _, how = system.partition("-")
        is_one_model_per_task = LIBRARY_OF[system].endswith("_models")
        work = how
        if is_one_model_per_task:
            work = str([sorted(batch) for batch in batches_by_task(rows, how)])
        key = (LIBRARY_OF[system], system in FLOAT32_SYSTEMS, system if not how else work)
        if key not in seen:
            seen.add(key)
            found.append(system)
    return found


def check_answers(
    case: Case, system: str, logits: Sequence[Sequence[float]] | None, expected: Logits | None
) -> float | None:
    """Return the largest difference of a system's logits from the merged models'.

    Raises:
        AnswersDifferError: If it is more than float rounding.
    """
    if system in WITHOUT_ANSWERS or expected is None:
        return None
    found = np.array(logits, np.float32)
    if found.shape != expected.shape or not np.isfinite(found).all():
        raise AnswersDifferError(
            f"{case.label}: {system} answered {found.shape} logits, not all of them finite or not "
            f"{expected.shape}"
        )
    difference = float(np.abs(found - expected).max())
    limit = TOLERANCES[case.dtype]
    if case.dtype == "bfloat16":
        limit *= float(np.abs(expected).max())
    if difference > limit:
        raise AnswersDifferError(
            f"{case.label}: logits of {system} differ from the merged models' by {difference:.2g}, "
            f"more than {limit:.2g}; nothing was timed"
        )
    return difference


def _build(
    case: Case, system: str, weights: Path, rows_path: Path, process: ChildProcess
) -> dict[str, Any]:
    return process.ask(
        "build",
        system=system,
        weights=str(weights),
        rows=str(rows_path),
        kinds=case.pets,
        threads=case.threads,
        dtype="float32" if system in FLOAT32_SYSTEMS else case.dtype,
        pooling=case.pooling,
    )


def _reference_logits(
    case: Case, weights: Path, rows_path: Path, children: Children
) -> Logits | None:
    """Return what the merged models answer in float32, row by row."""
    if all(system in WITHOUT_ANSWERS for system in case.systems):
        return None
    process = children.of(LIBRARY_OF[REFERENCE], case.threads)
    _build(replace(case, dtype="float32"), REFERENCE, weights, rows_path, process)
    logits = np.array(process.ask("logits", system=REFERENCE)["logits"], np.float32)
    process.ask("drop", system=REFERENCE)
    return logits


def _timed_in_turn(
    processes: dict[str, ChildProcess], repeats: int, clock: str
) -> dict[str, list[float]]:
    """Let every system make one pass, then every system the next, so that drift hits all alike."""
    times_s: dict[str, list[float]] = {system: [] for system in processes}
    for _ in range(repeats):
        for system, process in processes.items():
            times_s[system].append(process.ask("time", system=system)[clock])
    return times_s
