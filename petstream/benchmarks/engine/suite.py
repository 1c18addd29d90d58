"""The whole run: case after case, each as soon as it is measured."""

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from petstream.benchmarks.engine.cases import Case
from petstream.benchmarks.engine.children import Children
from petstream.benchmarks.engine.environments import left_out
from petstream.benchmarks.engine.kept_cells import KeptCells
from petstream.benchmarks.engine.measuring import Measured, measure, ours_is_faster
from petstream.benchmarks.engine.weight_writer import WeightWriter


@dataclass(frozen=True, slots=True)
class Suite:
    """Where and how often."""

    folder: Path
    """For weights and logs; BERT-base's merged models and their ONNX files take 4 GB."""
    models_dir: Path
    """The backbones of this machine."""
    repeats: int = 5
    kept: KeptCells | None = None
    """Where cases are kept, and found that a run before measured; None keeps nothing."""

    def run(self, cases: Sequence[Case]) -> Generator[list[Measured], None, None]:
        """Yield each case's measurements; systems whose environment is not built are left out.

        Closed before its end, it ends the systems' processes.

        Raises:
            BackboneError: If a backbone is not on this machine.
            SystemFailed: If a system cannot be built or run.
            AnswersDifferError: If a system answers otherwise than the merged models.
        """
        found = [None if self.kept is None else self.kept.of(case) for case in cases]
        wanted = [case for case, cell in zip(cases, found, strict=True) if cell is None]
        with closing(self._measured(wanted)) as measured:
            for cell in found:
                yield cell if cell is not None else next(measured)

    def _measured(self, cases: Sequence[Case]) -> Generator[list[Measured], None, None]:
        writer = WeightWriter(self.folder, self.models_dir)
        with Children(self.folder) as children:
            for number, case in enumerate(cases):
                missing = left_out(case.systems)
                systems = tuple(system for system in case.systems if system not in missing)
                weights = writer.folder(case.shape, case.pets)
                cell = measure(replace(case, systems=systems), weights, children, self.repeats)
                if self.kept is not None:
                    self.kept.keep(case, cell)
                yield cell
                later = [(after.shape, after.pets) for after in cases[number + 1 :]]
                if (case.shape, case.pets) not in later:
                    writer.drop(case.shape, case.pets)


def as_row(one: Measured, cell: Sequence[Measured]) -> dict[str, Any]:
    """Return a measurement as a row of the JSON document.

    Args:
        one: A system.
        cell: All systems of its case.
    """
    case = one.case
    return {
        "case": case.label,
        "backbone": case.shape.name,
        "lengths": case.mix.name,
        "tasks": case.tasks,
        "pets": list(case.pets),
        "threads": case.threads,
        "dtype": case.dtype,
        "pooling": case.pooling,
        "queries": case.rows,
        "tokens": one.num_tokens,
        "system": one.system,
        "library": one.library,
        "median_s": one.median_s,
        "least_s": min(one.times_s),
        "times_s": list(one.times_s),
        "queries_per_s": case.rows / one.median_s,
        "tokens_per_s": one.num_tokens / one.median_s,
        "ours_is_faster": ours_is_faster(one, cell),
        "gigaflop": one.gigaflop,
        "max_difference": one.max_difference,
        "bytes_per_task": one.bytes_per_task,
    }
