"""One time budget for all the steps of a shutdown or a hand-over."""

from collections.abc import Callable
from time import monotonic


class Deadline:
    """A point in time; every step asks how much is left instead of having a budget of its own."""

    def __init__(self, budget_s: float, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._end_s = clock() + budget_s

    @property
    def left_s(self) -> float:
        """Seconds left, at least 0."""
        return max(0.0, self._end_s - self._clock())

    @property
    def has_passed(self) -> bool:
        """Whether nothing is left."""
        return self.left_s <= 0.0
