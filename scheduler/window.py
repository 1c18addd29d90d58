"""The batching window: the records that are planned together.

Lives on the Kafka thread, so it looks at sizes and deadlines only and decodes nothing; tokens are
estimated from bytes, and exact limits are the planner's. A longer window makes fuller batches, a
shorter one faster answers. A deadline closes a window early for everybody in it, so it is heeded
only where that can help, and never at once: one caller in a hurry would otherwise give every task
batches of one row.
"""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from scheduler.deadline_hint import deadline_ms_of
from transport.records import Partition, Record
from transport.window import FOREVER_S

_ENVELOPE_BYTES = 64
"""Of a query that is not its text: field names, id, task."""
_BYTES_PER_TOKEN = 4
_SHORTEST_WAIT_MS = 1.0
"""Before a deadline closes a window, however near it is: time for company to come."""


@dataclass(frozen=True, slots=True)
class WindowLimits:
    """When a window closes: whichever comes first.

    Raises:
        ValueError: If a limit is not positive, or a time is negative.
    """

    max_wait_ms: float = 4.0
    """Since the first record of the window."""
    max_rows: int = 2048
    max_tokens: int = 65_536
    """Estimated."""
    max_bytes: int = 4 * 2**20
    deadline_reserve_ms: float = 100.0
    """How long before the earliest deadline the window closes: the time the rest needs. With less
    time left it closes 1 ms after the record came; a deadline that is past is not heeded."""

    def __post_init__(self) -> None:
        if not (self.max_wait_ms >= 0 and self.deadline_reserve_ms >= 0):
            raise ValueError(f"expected times of at least 0 ms, got {self}")
        if min(self.max_rows, self.max_tokens, self.max_bytes) < 1:
            raise ValueError(f"expected limits of at least 1, got {self}")


class SchedulingWindow:
    """Implements `transport.window.Window`.

    Records leave in the order in which they came, all at once: nothing is carried over, so the
    committed offset of a partition is always a promise about everything before it.
    """

    def __init__(
        self, limits: WindowLimits, *, wall_clock_s: Callable[[], float] = time.time
    ) -> None:
        self._limits = limits
        self._wall_clock_s = wall_clock_s
        self._records: list[Record] = []
        self._num_tokens = 0
        self._num_bytes = 0
        self._close_at_s = FOREVER_S

    def __len__(self) -> int:
        return len(self._records)

    def add(self, record: Record, now_s: float, /) -> None:
        """Take a record in.

        Args:
            record: A query or an escalation, whatever it holds.
            now_s: On the clock that `is_ready` will be asked with.
        """
        close_at_s = now_s + self._wait_ms(record) / 1000
        self._close_at_s = min(self._close_at_s, close_at_s) if self._records else close_at_s
        self._records.append(record)
        self._count(record)

    def is_ready(self, now_s: float, /) -> bool:
        """Tell whether the window should close now."""
        return bool(self._records) and (now_s >= self._close_at_s or self.is_full())

    def is_full(self) -> bool:
        """Tell whether a limit is reached: what comes now belongs into the next window."""
        return (
            len(self._records) >= self._limits.max_rows
            or self._num_tokens >= self._limits.max_tokens
            or self._num_bytes >= self._limits.max_bytes
        )

    def wait_s(self, now_s: float, /) -> float:
        """Return how long until the window closes by time alone."""
        if not self._records:
            return FOREVER_S
        return 0.0 if self.is_full() else max(0.0, self._close_at_s - now_s)

    def take(self) -> list[Record]:
        """Close the window: return its records and begin the next."""
        taken, self._records = self._records, []
        self._num_tokens = self._num_bytes = 0
        return taken

    def forget(self, partitions: Collection[Partition], /) -> None:
        """Drop the records of partitions that another process owns now."""
        kept = [record for record in self._records if record.source not in partitions]
        self.take()
        self._records = kept
        for record in kept:
            self._count(record)

    def _wait_ms(self, record: Record) -> float:
        """Return how long the window may wait after this record came."""
        longest_ms = self._limits.max_wait_ms
        deadline_ms = deadline_ms_of(record)
        if deadline_ms is None:
            return longest_ms
        left_ms = deadline_ms - 1000 * self._wall_clock_s()
        if left_ms <= 0:
            return longest_ms  # too late already: haste would help nobody
        in_time_ms = max(_SHORTEST_WAIT_MS, left_ms - self._limits.deadline_reserve_ms)
        return min(longest_ms, in_time_ms)

    def _count(self, record: Record) -> None:
        num_bytes = len(record.value or b"") + len(record.key or b"")
        self._num_bytes += num_bytes
        self._num_tokens += 2 + max(0, num_bytes - _ENVELOPE_BYTES) // _BYTES_PER_TOKEN
