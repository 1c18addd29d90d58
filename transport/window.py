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

    def is_full(self) -> bool:
        """Tell whether no more records belong in; a ready window may still grow until taken."""
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
    """Ready as soon as it holds a record; a unit is whatever waits, within two limits.

    So an idle pipeline takes each record as it comes, and a busy one takes together what came
    meanwhile.
    """

    def __init__(self, max_records: int = 1, max_bytes: int | None = None) -> None:
        """Make a window.

        Args:
            max_records: Of one unit.
            max_bytes: Of the records of one unit together, unless it is a single one. None: any.

        Raises:
            ValueError: If a limit is less than 1.
        """
        if max_records < 1 or (max_bytes is not None and max_bytes < 1):
            raise ValueError(f"expected limits of at least 1, got {max_records}, {max_bytes}")
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._records: deque[Record] = deque()
        self._num_bytes = 0

    def add(self, record: Record, _now_s: float, /) -> None:
        """Take a record in."""
        self._records.append(record)
        self._num_bytes += record.num_bytes

    def is_ready(self, _now_s: float, /) -> bool:
        """Tell whether there is a record."""
        return bool(self._records)

    def is_full(self) -> bool:
        """Tell whether one unit is at hand."""
        is_large = self._max_bytes is not None and self._num_bytes >= self._max_bytes
        return is_large or len(self._records) >= self._max_records

    def wait_s(self, _now_s: float, /) -> float:
        """Return for ever: time alone changes nothing."""
        return FOREVER_S

    def take(self) -> list[Record]:
        """Return the oldest records."""
        taken: list[Record] = []
        num_bytes = 0
        while self._records and len(taken) < self._max_records:
            num_bytes += self._records[0].num_bytes
            if taken and self._max_bytes is not None and num_bytes > self._max_bytes:
                break
            taken.append(self._records.popleft())
        self._num_bytes -= sum(record.num_bytes for record in taken)
        return taken

    def forget(self, partitions: Collection[Partition], /) -> None:
        """Drop the records of these partitions."""
        self._records = deque(r for r in self._records if r.source not in partitions)
        self._num_bytes = sum(record.num_bytes for record in self._records)

    def __len__(self) -> int:
        return len(self._records)
