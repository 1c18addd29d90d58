"""Which stream runs which operator: PetS's rule (section 5), by operational intensity.

An operator here is whatever is launched as one: the operator of one task, PetS's unit, or a grouped
one of all tasks. The rule is the same; only this module decides. Running is `streams`' part.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Work:
    """What an operator has to do, by its shapes."""

    flops: int
    """Two for a multiply-add, one for any other addition, product or function of a value."""
    num_bytes: int
    """Read and written. Each launch reads what it needs once and writes its results once, however
    often caches are asked; row slots and tile tables, a few bytes to a row, are left out."""

    def __add__(self, other: "Work") -> "Work":
        """Return the work of both, one after the other."""
        return Work(self.flops + other.flops, self.num_bytes + other.num_bytes)


class Measured(NamedTuple):
    """What a profiler saw of an operator."""

    latency_s: float
    """PetS's beta."""
    bytes_per_s: float
    """PetS's omega: the memory bandwidth that the operator reached."""


def intensity(work: Work, measured: Measured | None = None) -> float:
    """Return the operational intensity: FLOPs over bytes moved.

    Semantics: op.FLOPs / (beta(op) * omega(op)); latency times bandwidth is the bytes that were
    moved, for which those of the shapes stand where nothing was measured.

    Raises:
        ValueError: If no bytes are moved: there is nothing to run.
    """
    num_bytes = work.num_bytes if measured is None else measured.latency_s * measured.bytes_per_s
    if num_bytes <= 0:
        raise ValueError(f"expected an operator that moves bytes, got {work}, {measured}")
    return work.flops / num_bytes


def deal(operators: Sequence[T], intensities: Sequence[float], num_streams: int) -> list[list[T]]:
    """Assign operators to streams: sorted by intensity, from high to low, in even runs.

    PetS sorts and assigns evenly, so that operators which contend for the same resource do not run
    side by side, and does not say how the sorted ones are dealt. A stream runs its operators in
    turn, so those most alike belong in one: each stream takes the next run of the sorted ones, and
    the i-th operators of two streams are at least a whole run apart. Dealt one by one, to stream
    after stream, the most alike would meet.

    Args:
        operators: Independent of each other.
        intensities: One per operator; of equal ones, the earlier operator comes first.
        num_streams: At least 1.

    Returns:
        The operators of each stream in the order they run. Their numbers differ by at most one, and
        the first streams have more.

    Raises:
        ValueError: If there is no stream, or not one intensity per operator.
    """
    if num_streams < 1:
        raise ValueError(f"expected at least one stream, got {num_streams}")
    pairs = list(zip(operators, intensities, strict=True))
    ranked = [one for one, _ in sorted(pairs, key=lambda pair: -pair[1])]
    size, longer = divmod(len(ranked), num_streams)
    ends = [size * (stream + 1) + min(stream + 1, longer) for stream in range(num_streams)]
    return [ranked[start:end] for start, end in zip([0, *ends], ends, strict=False)]
