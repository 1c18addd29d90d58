"""Between poll and window: a bounded buffer, and the check that no record is skipped.

librdkafka throws its prefetched records away when a partition is paused, so pausing whenever the
window is full would fetch the same megabytes again and again. The intake takes what was fetched
and asks for a pause only when it is full itself, and for the end of it when it is nearly empty.
"""

from collections import defaultdict, deque
from collections.abc import Collection
from dataclasses import dataclass

from transport.errors import WindowSkippedRecords
from transport.records import Partition, Record
from transport.window import Window


@dataclass(frozen=True, slots=True)
class IntakeLimits:
    """How much may wait in front of the window."""

    max_records: int = 1000
    max_bytes: int = 32 * 1024 * 1024
    low_share: float = 0.25
    """Resume once both counts are down to this share of their limits."""


class Intake:
    """Records that were read but are not yet part of a unit."""

    def __init__(self, window: Window, limits: IntakeLimits) -> None:
        self._window = window
        self._limits = limits
        self._waiting: deque[Record] = deque()
        self._num_bytes = 0
        self._in_window: defaultdict[Partition, deque[int]] = defaultdict(deque)

    @property
    def room(self) -> int:
        """How many more records it takes, at least 1: a poll must ask for something."""
        return max(1, self._limits.max_records - len(self._waiting))

    @property
    def is_full(self) -> bool:
        """Whether no more records should come."""
        limits = self._limits
        return len(self._waiting) >= limits.max_records or self._num_bytes >= limits.max_bytes

    @property
    def is_low(self) -> bool:
        """Whether it is time for more records after it was full."""
        limits = self._limits
        return (
            len(self._waiting) <= limits.max_records * limits.low_share
            and self._num_bytes <= limits.max_bytes * limits.low_share
        )

    def put(self, records: Collection[Record]) -> None:
        """Add what a poll returned."""
        self._waiting.extend(records)
        self._num_bytes += sum(record.num_bytes for record in records)

    def feed_window(self, now_s: float) -> None:
        """Move records into the window until it is full: ready, it still grows until taken."""
        while self._waiting and not self._window.is_full():
            record = self._waiting.popleft()
            self._num_bytes -= record.num_bytes
            self._in_window[record.source].append(record.offset)
            self._window.add(record, now_s)

    def take(self) -> list[Record]:
        """Take one unit out of the window.

        Raises:
            WindowSkippedRecords: If the unit is empty or skips a record that came before.
        """
        records = self._window.take()
        if not records:
            raise WindowSkippedRecords("the window said it was ready, then gave no record")
        for record in records:
            offsets = self._in_window[record.source]
            if not offsets or offsets.popleft() != record.offset:
                raise WindowSkippedRecords(
                    f"the window gave {record.source}/{record.offset} out of order"
                )
        return records

    def forget(self, partitions: Collection[Partition]) -> None:
        """Drop everything of partitions that were taken away."""
        self._waiting = deque(r for r in self._waiting if r.source not in partitions)
        self._num_bytes = sum(record.num_bytes for record in self._waiting)
        for partition in partitions:
            self._in_window.pop(partition, None)
        self._window.forget(partitions)
