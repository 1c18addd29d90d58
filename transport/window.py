"""The window: decides which records make one unit of work. And the simplest one, by count."""

from collections import deque
from collections.abc import Collection
from typing import Protocol

from transport.records import Partition, Record

FOREVER_S = 3600.0
"""What `Window.wait_s` returns when only a new record can make a window ready."""


class Window(Protocol):
    """Pending records. Lives on the Kafka thread, so nothing in it may take long.

    Records of one partition must leave in the order in which they were added, because a committed
    offset settles everything before it; the pipeline stops with `WindowSkippedRecords` otherwise.
    """

    def add(self, record: Record, now_s: float, /) -> None:
        """Take a record in."""
        ...

    def is_ready(self, now_s: float, /) -> bool:
        """Tell whether a unit should be taken now."""
        ...

    def wait_s(self, now_s: float, /) -> float:
        """Return how many seconds polling may block until `is_ready` can change by time alone."""
        ...

    def take(self) -> list[Record]:
        """Remove and return the records of one unit, at least one when ready."""
        ...

    def forget(self, partitions: Collection[Partition], /) -> None:
        """Drop all records of partitions that were taken away."""
        ...

    def __len__(self) -> int:
        """Return the number of pending records."""
        ...


class CountWindow:
    """Ready as soon as it holds a record; a unit is at most `max_records` of them.

    With one record per unit this is a worker's window: a macro-batch is a unit already.
    """

    def __init__(self, max_records: int = 1) -> None:
        if max_records < 1:
            raise ValueError(f"expected max_records >= 1, got {max_records}")
        self._max_records = max_records
        self._records: deque[Record] = deque()

    def add(self, record: Record, _now_s: float, /) -> None:
        """Take a record in."""
        self._records.append(record)

    def is_ready(self, _now_s: float, /) -> bool:
        """Tell whether there is a record."""
        return bool(self._records)

    def wait_s(self, _now_s: float, /) -> float:
        """Return for ever: time alone changes nothing."""
        return FOREVER_S

    def take(self) -> list[Record]:
        """Return the oldest records."""
        num_records = min(self._max_records, len(self._records))
        return [self._records.popleft() for _ in range(num_records)]

    def forget(self, partitions: Collection[Partition], /) -> None:
        """Drop the records of these partitions."""
        self._records = deque(r for r in self._records if r.source not in partitions)

    def __len__(self) -> int:
        return len(self._records)
