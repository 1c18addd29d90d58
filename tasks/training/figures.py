"""Figures of merit per kind of task."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from messages.task_event import TaskKind
from tasks.bio_tags import WordSpan, bio_spans
from tasks.training.evaluation import PerRow

PRIMARY: Mapping[TaskKind, str] = {
    "single_label": "accuracy",
    "multi_label": "exact_match",
    "regression": "pearson",
    "tagging": "span_f1",
}
"""The figure that a kind is judged by; larger is better."""


def figures(
    found: PerRow, labels: Sequence[str], decision_threshold: float = 0.5
) -> dict[str, float]:
    """Return the figures of merit of a kind.

    Args:
        found: Logits and targets.
        labels: Of the task.
        decision_threshold: Multi-label: probability from which a label is given.
    """
    if found.kind == "tagging":
        return _tagging_figures(found, labels)
    logits, targets = found.stacked()
    if found.kind == "regression":
        return _regression_figures(logits[:, 0], targets[:, 0])
    if found.kind == "multi_label":
        cut = np.log(decision_threshold / (1 - decision_threshold))
        return _multi_label_figures(logits >= cut, targets > 0.5)
    return {"accuracy": float(np.mean(logits.argmax(-1) == targets))}


def _regression_figures(
    values: NDArray[np.float32], targets: NDArray[np.float64]
) -> dict[str, float]:
    spread = values.std() > 0 and targets.std() > 0
    pearson = np.corrcoef(values, targets)[0, 1] if spread else 0.0
    return {
        "pearson": float(pearson),
        "rmse": float(np.sqrt(np.mean((values - targets) ** 2))),
    }


def _multi_label_figures(given: NDArray[np.bool_], wanted: NDArray[np.bool_]) -> dict[str, float]:
    return {
        "exact_match": float((given == wanted).all(axis=1).mean()),
        "micro_f1": _f1(int((given & wanted).sum()), int(given.sum()), int(wanted.sum())),
    }


def _tagging_figures(found: PerRow, labels: Sequence[str]) -> dict[str, float]:
    """Span F1 is conlleval's: a span counts when its ends and its name are right.

    Words that were cut off with the end of a long row count on neither side.
    """
    right = num_given = num_wanted = 0
    right_words = right_rows = num_words = 0
    for row, target in zip(found.outputs, found.targets, strict=True):
        best, truth = row.argmax(axis=-1), target.astype(np.int64)
        given, wanted = _spans(best, labels), _spans(truth, labels)
        right += len(given & wanted)
        num_given += len(given)
        num_wanted += len(wanted)
        right_words += int((best == truth).sum())
        right_rows += bool((best == truth).all())
        num_words += len(truth)
    return {
        "span_f1": _f1(right, num_given, num_wanted),
        "exact_match": right_rows / len(found.outputs),
        "word_accuracy": right_words / num_words,
    }


def _spans(tags: NDArray[np.int64], labels: Sequence[str]) -> set[WordSpan]:
    return set(bio_spans(enumerate(labels[index] for index in tags.tolist())))


def _f1(num_right: int, num_given: int, num_wanted: int) -> float:
    total = num_given + num_wanted
    return 2 * num_right / total if total else 1.0
