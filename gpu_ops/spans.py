"""Which rows of a packed tensor an op of one task acts on."""

from typing import NamedTuple


class Span(NamedTuple):
    """Rows `start` to `end` (exclusive) of a packed tensor, all of one task."""

    start: int
    end: int

    @property
    def num_rows(self) -> int:
        """How many rows it covers."""
        return self.end - self.start
