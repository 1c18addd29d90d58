"""The answer to a query: exactly one of these, or one `ErrorAnswer`, per query."""

from dataclasses import dataclass

from messages.origin import Origin


@dataclass(frozen=True, slots=True)
class Result:
    """An answer. `labels` with `scores`, or `value`, or `tags`, by the kind of the task."""

    id: str
    task: str
    """The task's name, without revision or alias."""
    task_revision: int
    origin: Origin
    level: int
    confidence: float
    labels: tuple[str, ...] = ()
    """Best first. Multi-label: those above the task's decision threshold."""
    scores: tuple[float, ...] = ()
    """Calibrated probability of each of `labels`."""
    value: float | None = None
    tags: tuple[tuple[int, int, str], ...] | None = None
    """Tagging: (first character, end character, label) for each tagged span of words. Words that
    were cut off with the end of a long text have no tag."""
    kept_tokens: int = 0
    """Tokens that the answering level saw, special tokens included."""
    timings_ms: tuple[tuple[str, float], ...] = ()
    input_digest: bytes = b""
    batch_id: str = ""
    attempt: int = 1
