"""From calibrated scores to the answer of a query, by the kind of its task."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from messages.query import QueryParameters
from tasks.description import TaskDescription

Scores: TypeAlias = NDArray[np.float32]

DEFAULT_DECISION_THRESHOLD = 0.5
"""A label of a multi-label task is given from this score, where calibration fitted no other."""

_LEAST_LENGTH = 1e-12
"""As in torch's `normalize`: below it there is no direction to keep."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The part of a result that depends on the kind of the task."""

    labels: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    value: float | None = None
    embedding: tuple[float, ...] | None = None


def answer(task: TaskDescription, scores: Scores, parameters: QueryParameters) -> Answer:
    """Return the answer of one row.

    Single label: the best `top_k` labels, one by default. Multi-label: every label from the
    decision threshold, best first, at most `top_k` where that is given. Regression: the value.
    Embedding: the vector, normalised where the task says so.

    Args:
        task: The row's task; not a tagging task, whose answer needs the words (`workers.tagging`).
        scores: Calibrated scores, `[num_labels]`, or `[1]` for a regression, or `[dimensions]` for
            an embedding.
        parameters: The query's.
    """
    if task.kind == "regression":
        return Answer(value=float(scores[0]))
    if task.embedding is not None:
        vector = normalised(scores) if task.embedding.normalise else scores
        return Answer(embedding=tuple(vector.tolist()))
    best_first = np.argsort(-scores, kind="stable")
    if task.kind == "multi_label":
        threshold = DEFAULT_DECISION_THRESHOLD
        if task.cascade is not None and task.cascade.decision_threshold is not None:
            threshold = task.cascade.decision_threshold
        best_first = best_first[scores[best_first] >= threshold]
        best_first = best_first[: parameters.top_k]
    else:
        best_first = best_first[: parameters.top_k or 1]
    return Answer(
        labels=tuple(task.labels[index] for index in best_first),
        scores=tuple(float(scores[index]) for index in best_first),
    )


def normalised(vector: Scores) -> Scores:
    """Return the vector with Euclidean length 1, float32; one of zeros as it is."""
    wide = vector.astype(np.float64)
    length = max(float(np.linalg.norm(wide)), _LEAST_LENGTH)
    return (wide / length).astype(np.float32)
