"""Exact de-duplication of answers by the origin of their query.

Origins of one partition are offsets, and nearly every offset gets an answer, so what has been
seen is a few intervals: exact, without a time limit and without an eviction that could forget.
"""

from bisect import bisect_right
from collections.abc import Iterable

from messages.origin import Origin

SourcePartition = tuple[str, str, int]
"""Topic, incarnation of the topic, partition: what the offsets of an origin count in."""

Interval = tuple[int, int]
"""First offset, and the offset after the last."""


class IntervalSet:
    """A set of whole numbers, kept as disjoint intervals that never touch each other.

    Adding costs O(log n) to find and O(n) to insert, n being the number of intervals: one where
    the numbers come without gaps, and one more for each gap.
    """

    __slots__ = ("_ends", "_starts")

    def __init__(self, intervals: Iterable[Interval] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in sorted(intervals):
            if start >= end:
                raise ValueError(f"expected start < end, got ({start}, {end})")
            if self._ends and start <= self._ends[-1]:
                self._ends[-1] = max(end, self._ends[-1])
            else:
                self._starts.append(start)
                self._ends.append(end)

    def add(self, number: int) -> bool:
        """Add `number`; tell whether it is new."""
        right = bisect_right(self._starts, number)
        left = right - 1
        if left >= 0 and number < self._ends[left]:
            return False
        extends_left = left >= 0 and self._ends[left] == number
        extends_right = right < len(self._starts) and self._starts[right] == number + 1
        if extends_left and extends_right:
            self._ends[left] = self._ends.pop(right)
            del self._starts[right]
        elif extends_left:
            self._ends[left] = number + 1
        elif extends_right:
            self._starts[right] = number
        else:
            self._starts.insert(right, number)
            self._ends.insert(right, number + 1)
        return True

    def __contains__(self, number: int) -> bool:
        left = bisect_right(self._starts, number) - 1
        return left >= 0 and number < self._ends[left]

    def __len__(self) -> int:
        return sum(self._ends) - sum(self._starts)

    @property
    def intervals(self) -> tuple[Interval, ...]:
        """Ascending and disjoint; no two of them touch."""
        return tuple(zip(self._starts, self._ends, strict=True))


class OriginDedupe:
    """Which origins have been seen, over all source partitions."""

    def __init__(self, seen: Iterable[tuple[SourcePartition, Iterable[Interval]]] = ()) -> None:
        self._seen = {partition: IntervalSet(intervals) for partition, intervals in seen}

    def add(self, origin: Origin) -> bool:
        """Note `origin`; tell whether this is the first time."""
        partition = (origin.topic, origin.topic_id, origin.partition)
        seen = self._seen.get(partition)
        if seen is None:
            seen = self._seen[partition] = IntervalSet()
        return seen.add(origin.offset)

    def snapshot(self) -> tuple[tuple[SourcePartition, tuple[Interval, ...]], ...]:
        """The whole state, for an application to store beside what it did with the answers."""
        return tuple((partition, seen.intervals) for partition, seen in self._seen.items())
