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


@dataclass(frozen=True, slots=True)
class Query:
    """A validated query, as the scheduler sees it."""

    id: str
    task: str
    """`name`, `name@revision` or `name:alias`."""
    text: str
    text_pair: str | None = None
    parameters: QueryParameters = QueryParameters()
    ttl_ms: int | None = None
    """Deadline, in milliseconds from the broker's append time. None: no deadline."""
