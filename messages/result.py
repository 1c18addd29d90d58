"""The answer to a query: exactly one of these, or one `ErrorAnswer`, per query."""

from dataclasses import dataclass

from messages.origin import Origin


@dataclass(frozen=True, slots=True)
class Result:
    """An answer. `labels` with `scores`, `value`, `tags` or `embedding`, by the task's kind."""

    id: str
    task: str
    """The task's name, without revision or alias."""
    task_revision: int
    origin: Origin
    level: int
    confidence: float
    """Calibrated, in [0, 1]. Of a regression 0, and of an embedding 1: it is not right or wrong."""
    labels: tuple[str, ...] = ()
    """Best first. Multi-label: those above the task's decision threshold."""
    scores: tuple[float, ...] = ()
    """Calibrated probability of each of `labels`."""
    value: float | None = None
    tags: tuple[tuple[int, int, str], ...] | None = None
    """Tagging: (first character, end character, label) for each tagged span of words. Words that
    were cut off with the end of a long text have no tag."""
    embedding: tuple[float, ...] | None = None
    """One vector, each number exactly a float32."""
    kept_tokens: int = 0
    """Tokens that the answering level saw, special tokens included."""
    timings_ms: tuple[tuple[str, float], ...] = ()
    input_digest: bytes = b""
    batch_id: str = ""
    attempt: int = 1
