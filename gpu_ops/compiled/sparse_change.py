"""A sparse change as compiled operators take it: addresses, and bytes of an element."""

from array import array
from collections.abc import Sequence
from weakref import WeakKeyDictionary

from gpu_ops.compiled.library import POINTER, SIZE, check_contiguous
from gpu_ops.spans import Span
from gpu_ops.sparse_delta import SparseWeights

POSITIONS = (POINTER, SIZE, POINTER, SIZE)
"""Of columns and row offsets."""
CHANGE = (*POSITIONS, POINTER, SIZE)
"""Of the values too; those of dropped weights are at 0 and have none."""
Arguments = tuple[int, int, int, int, int, int]


class ChangeArguments:
    """Knows those of every change that it was asked for, as long as the change is there."""

    def __init__(self) -> None:
        self._known: WeakKeyDictionary[SparseWeights, Arguments] = WeakKeyDictionary()

    def __call__(self, delta: SparseWeights) -> Arguments:
        """Return the arguments of `CHANGE`, the first four of which are those of `POSITIONS`.

        Raises:
            ValueError: If a tensor is not on the CPU or not contiguous.
        """
        known = self._known.get(delta)
        if known is None:
            known = self._known[delta] = _arguments(delta)
        return known

    def of_rows(self, spans: Sequence[Span], deltas: Sequence[SparseWeights]) -> "array[int]":
        """Return each task's rows and change, as `ChangedRows` in C++: eight integers of each.

        Args:
            spans: Its rows.
            deltas: One per span.

        Raises:
            ValueError: As of one change, or if there are not as many as spans.
        """
        tasks = array("q")
        for (start, end), delta in zip(spans, deltas, strict=True):
            tasks.extend((start, end, *self(delta)))
        return tasks


def _arguments(delta: SparseWeights) -> Arguments:
    check_contiguous(delta.columns, delta.row_offsets)
    values = delta.values
    if values is not None:
        check_contiguous(values)
    return (
        *(delta.columns.data_ptr(), delta.columns.itemsize),
        *(delta.row_offsets.data_ptr(), delta.row_offsets.itemsize),
        *((0, 0) if values is None else (values.data_ptr(), values.itemsize)),
    )
