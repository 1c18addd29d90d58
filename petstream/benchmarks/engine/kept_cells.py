"""Cases that were measured, in a file: a run that was ended goes on behind the last of them.

JSON Lines: first what the run is of (commit, processor, versions and so on), then a line for each
case, written as soon as it is measured.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from messages.validation_fault import first_fault
from petstream.benchmarks.document import commit, device, versions
from petstream.benchmarks.engine.cases import LIBRARY_OF, Case
from petstream.benchmarks.engine.environments import left_out
from petstream.benchmarks.engine.measuring import Measured


class KeptCellsError(Exception):
    """A file cannot be gone on with: what is wrong with it, and what to do."""


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


_CaseKey = tuple[str, int, tuple[str, ...]]
"""Label, rows, systems: cases of one name differ in the others from one selection to another."""
_AnyLine = TypeVar("_AnyLine", bound=_Line)


class Conditions(_Line):
    """All that figures of one run have in common: those of another run do not stand beside them."""

    commit: str
    device: str
    versions: dict[str, str]
    left_out: dict[str, str]
    """System -> the command that builds what it needs."""
    repeats: int

    @classmethod
    def of_this_run(cls, repeats: int) -> "Conditions":
        """Return those of this machine and checkout now.

        Args:
            repeats: Timed passes of each system.
        """
        return cls(
            commit=commit(),
            device=device(),
            versions=versions(),
            left_out=left_out(list(LIBRARY_OF)),
            repeats=repeats,
        )

    def check_commit(self) -> None:
        """Refuse a checkout with changes: two of them have one name and other code.

        Raises:
            KeptCellsError: If there are any.
        """
        if self.commit.endswith("-dirty"):
            raise KeptCellsError(
                f"figures of {self.commit} cannot be gone on with, since its changes have no name: "
                "commit them, or run without --resume"
            )

    def differences_from(self, other: "Conditions") -> str:
        """Return what is otherwise there, in words; empty if nothing is."""
        mine, theirs = self.model_dump(), other.model_dump()
        return "; ".join(
            f"{name} was {theirs[name]} and is {mine[name]}"
            for name in mine
            if mine[name] != theirs[name]
        )


class _KeptSystem(_Line):
    """A `Measured` without its case."""

    system: str
    library: str
    num_tokens: int
    gigaflop: float
    times_s: tuple[float, ...] = Field(min_length=1)
    max_difference: float | None
    bytes_per_task: float | None


class _KeptCell(_Line):
    case: str
    """Its label."""
    rows: int
    asked: tuple[str, ...]
    """Systems of the case, those that were left out or did another's work among them."""
    systems: list[_KeptSystem]

    @property
    def key(self) -> _CaseKey:
        """Return what it is found by."""
        return self.case, self.rows, self.asked


class KeptCells:
    """The cases in a file, and a place for those to come."""

    def __init__(self, path: Path, conditions: Conditions) -> None:
        """Read what is there; write the first line of a file that is not.

        A last line that was cut off while it was written is taken off: its case is measured again.

        Raises:
            KeptCellsError: If the file holds something else, was written under other conditions, or
                the checkout has changes.
            OSError: If it cannot be read or written.
        """
        conditions.check_commit()
        self._path = path
        self._cells: dict[_CaseKey, _KeptCell] = {}
        content = path.read_bytes() if path.exists() else b""
        if not content:
            self._append(conditions)
            return
        *lines, cut_off = content.split(b"\n")
        kept = self._read(Conditions, lines[0] if lines else cut_off, number=1)
        if differences := conditions.differences_from(kept):
            raise KeptCellsError(
                f"{path} is of another run, whose figures do not compare with these "
                f"({differences}): name another file, or remove it"
            )
        for number, line in enumerate(lines[1:], start=2):
            cell = self._read(_KeptCell, line, number)
            self._cells[cell.key] = cell
        if cut_off:
            os.truncate(path, len(content) - len(cut_off))
        if not lines:
            self._append(conditions)

    def of(self, case: Case) -> list[Measured] | None:
        """Return what was measured of a case, None if nothing was."""
        cell = self._cells.get((case.label, case.rows, case.systems))
        if cell is None:
            return None
        return [Measured(case=case, **one.model_dump()) for one in cell.systems]

    def keep(self, case: Case, measured: Sequence[Measured]) -> None:
        """Write a case down, so that it outlives this process and the machine's next start."""
        systems = [_KeptSystem.model_validate(one, from_attributes=True) for one in measured]
        cell = _KeptCell(case=case.label, rows=case.rows, asked=case.systems, systems=systems)
        self._append(cell)
        self._cells[cell.key] = cell

    def _read(self, kind: type[_AnyLine], line: bytes, number: int) -> _AnyLine:
        try:
            return kind.model_validate_json(line)
        except ValidationError as error:
            raise KeptCellsError(
                f"{self._path}, line {number} is not of `petstream bench engine --resume` "
                f"({first_fault(error, 'the line')}): name another file, or remove it"
            ) from None

    def _append(self, line: _Line) -> None:
        with self._path.open("ab") as file:
            file.write(line.model_dump_json().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
