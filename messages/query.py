"""A query: one text, or a pair of texts, for one task."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class QueryParameters:
    """What a caller may ask for beside the answer itself. None means: the task's default."""

    accuracy_target: float | None = None
    """In (0, 1]: picks the cascade plan."""
    latency_slo_ms: float | None = None
    """Wanted latency from append to answer; closes windows early, does not expire the query."""
    level: int | None = None
    """Answer from exactly this level; no cascade."""
    min_confidence: float | None = None
    """In [0, 1]: replaces the task's threshold."""
    top_k: int | None = None
    """How many labels to return, best first; at least 1."""
    priority: int | None = None
    """1 is the highest, 9 the lowest."""


NO_PARAMETERS = QueryParameters()


@dataclass(frozen=True, slots=True)
class Query:
    """A validated query, as the scheduler sees it."""

    id: str
    task: str
    """`name`, `name@revision` or `name:alias`."""
    text: str
    text_pair: str | None = None
    parameters: QueryParameters = NO_PARAMETERS
    ttl_ms: int | None = None
    """Deadline, in milliseconds from the broker's append time. None: no deadline."""
    expires_at_ms: int | None = None
    """Deadline, in milliseconds since 1970 by the caller's clock (`ce_expirytime`)."""

    def deadline_ms(self, appended_ms: int) -> int | None:
        """The earlier of both deadlines, in milliseconds since 1970; None: there is none.

        Args:
            appended_ms: The broker's append time of the query, milliseconds since 1970.
        """
        if self.ttl_ms is None:
            return self.expires_at_ms
        expires_ms = appended_ms + self.ttl_ms
        if self.expires_at_ms is None:
            return expires_ms
        return min(expires_ms, self.expires_at_ms)
