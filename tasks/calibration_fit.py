"""Fits a task's cascade to labelled rows that were not trained on.

Per level a temperature (least negative log-likelihood, Guo et al. 2017), weights in proportion to
the levels' accuracies (Tabi), for multi-label the probability from which a label is given, and the
confidence from which a level answers at once.

That confidence is the bare optimum on the given rows: the least threshold at which the cascade
reaches its target there. It carries no statistical bound, so on other rows the target is met about
as often as it is missed; a bound is a later release's work.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from messages.task_event import TaskKind
from tasks.calibration import calibrated_scores, confidence, join_levels
from tasks.description import Cascade

RowScores: TypeAlias = Sequence[NDArray[np.float32]]
"""One array for each row: (num_labels,), or for tagging (num_words, num_labels)."""
RowTargets: TypeAlias = Sequence[NDArray[np.float64]]
"""One array for each row: () index; (num_labels,) of 0 and 1; (1,) value; (num_words,) indices."""

DEFAULT_MARGIN = 0.005
"""The default target is the large level's accuracy less this."""
_NUM_BINS = 15
_LOG_TEMPERATURE_BOUNDS = (-3.0, 3.0)
_DECISION_GRID = np.arange(0.10, 0.91, 0.05)


@dataclass(frozen=True, slots=True)
class CascadeFigures:
    """What a cascade does on some rows."""

    num_rows: int
    level_accuracies: tuple[float, ...]
    """Each level alone, as `accuracy` measures it."""
    cascade_accuracy: float
    answered_shares: tuple[float, ...]
    """Per level, the share of rows that it answers."""
    errors_before: tuple[float, ...]
    """Per level, expected calibration error without the temperature."""
    errors_after: tuple[float, ...]
    """Per level, with the temperature."""

    @property
    def escalated_share(self) -> float:
        """The share of rows that go on from the first level."""
        return 1.0 - self.answered_shares[0]


def fit_cascade(
    logits: Sequence[RowScores], targets: RowTargets, kind: TaskKind, target: float | None = None
) -> Cascade:
    """Fit all constants of a task's cascade.

    Args:
        logits: Per level, as the engine gives them; the same rows in the same order.
        targets: Of those rows.
        kind: Of the task.
        target: Accuracy that the cascade should reach; None: the last level's, less half a point.

    Raises:
        ValueError: If there are no rows or levels, or their numbers differ.
    """
    if not logits or not targets or any(len(rows) != len(targets) for rows in logits):
        raise ValueError(f"expected {len(targets)} rows, at least one, of at least one level")
    temperatures = tuple(fit_temperature(rows, targets, kind) for rows in logits)
    scores = [
        [calibrated_scores(row, temperature, kind) for row in rows]
        for rows, temperature in zip(logits, temperatures, strict=True)
    ]
    decision = _fit_decision(scores, targets) if kind == "multi_label" else None
    accuracies = tuple(accuracy(rows, targets, kind, decision) for rows in scores)
    total = sum(accuracies)
    weights = tuple(a / total if total else 1 / len(accuracies) for a in accuracies)
    wanted = accuracies[-1] - DEFAULT_MARGIN if target is None else target
    wanted = min(max(wanted, 1e-6), 1.0)
    return Cascade(
        temperatures=temperatures,
        threshold=_fit_threshold(scores, targets, kind, weights, decision, wanted),
        ensemble_weights=weights,
        accuracies=accuracies,
        decision_threshold=decision,
        fitted_on_rows=len(targets),
        target=wanted,
    )


def measure_cascade(
    logits: Sequence[RowScores], targets: RowTargets, kind: TaskKind, cascade: Cascade
) -> CascadeFigures:
    """Tell what a fitted cascade does on some rows, by the rules that workers follow."""
    scores = [
        [calibrated_scores(row, temperature, kind) for row in rows]
        for rows, temperature in zip(logits, cascade.temperatures, strict=True)
    ]
    raw = [[calibrated_scores(row, 1.0, kind) for row in rows] for rows in logits]
    decision = cascade.decision_threshold
    visits = _Visits(scores, kind, cascade.ensemble_weights)
    answering = visits.answering(cascade.threshold)
    answers = visits.answers(answering)
    return CascadeFigures(
        num_rows=len(targets),
        level_accuracies=tuple(accuracy(rows, targets, kind, decision) for rows in scores),
        cascade_accuracy=accuracy(answers, targets, kind, decision),
        answered_shares=tuple(float(np.mean(answering == i)) for i in range(len(scores))),
        errors_before=tuple(calibration_error(rows, targets, kind) for rows in raw),
        errors_after=tuple(calibration_error(rows, targets, kind) for rows in scores),
    )


def fit_temperature(logits: RowScores, targets: RowTargets, kind: TaskKind) -> float:
    """Return the temperature of the least negative log-likelihood; 1 for a regression."""
    if kind == "regression":
        return 1.0
    stacked, wanted = _stack(logits, targets, kind)

    def loss(log_temperature: float) -> float:
        return _negative_log_likelihood(stacked / np.exp(log_temperature), wanted, kind)

    found = minimize_scalar(loss, bounds=_LOG_TEMPERATURE_BOUNDS, method="bounded")
    return float(np.exp(found.x))


def accuracy(
    scores: RowScores, targets: RowTargets, kind: TaskKind, decision_threshold: float | None = None
) -> float:
    """Return the figure that a level is weighed by, in [0, 1].

    Single label: share of rows; multi-label and tagging: share of rows with exactly the right
    labels; regression: Pearson correlation, 0 where it is negative.
    """
    if kind == "regression":
        stacked, wanted = _stack(scores, targets, kind)
        values, truth = stacked[:, 0], wanted[:, 0]
        if values.std() == 0 or truth.std() == 0:
            return 0.0
        return max(0.0, float(np.corrcoef(values, truth)[0, 1]))
    return float(np.mean(_hits(scores, targets, kind, decision_threshold)))


def calibration_error(scores: RowScores, targets: RowTargets, kind: TaskKind) -> float:
    """Return the expected calibration error over 15 bins of equal width (Guo et al. 2017).

    Over rows, for tagging over words, for multi-label over labels; 0 for a regression.
    """
    if kind == "regression":
        return 0.0
    stacked, wanted = _stack(scores, targets, kind)
    if kind == "multi_label":
        sure = np.maximum(stacked, 1 - stacked).ravel()
        right = ((stacked >= 0.5) == (wanted > 0.5)).ravel()
    else:
        sure = stacked.max(axis=1)
        right = stacked.argmax(axis=1) == wanted
    bins = np.minimum((sure * _NUM_BINS).astype(int), _NUM_BINS - 1)
    gaps = [
        abs(right[bins == index].mean() - sure[bins == index].mean()) * np.mean(bins == index)
        for index in np.unique(bins)
    ]
    return float(sum(gaps))


@dataclass(frozen=True, slots=True)
class _Visits:
    """What rows would be answered with, for any threshold."""

    scores: Sequence[RowScores]
    kind: TaskKind
    weights: Sequence[float]

    def combined(self) -> list[RowScores]:
        """Per level, each row's scores if it came so far: ensembled with the level before."""
        found: list[RowScores] = [self.scores[0]]
        for level in range(1, len(self.scores)):
            if self.kind == "tagging":  # levels may cut words differently: not ensembled
                found.append(self.scores[level])
                continue
            pair = self.weights[level - 1], self.weights[level]
            found.append(
                [
                    join_levels(before, now, pair)
                    for before, now in zip(found[-1], self.scores[level], strict=True)
                ]
            )
        return found

    def confidences(self) -> NDArray[np.float64]:
        """Shape (num_levels, num_rows)."""
        return np.array(
            [[confidence(row, self.kind) for row in rows] for rows in self.combined()], np.float64
        )

    def answering(self, threshold: float) -> NDArray[np.int64]:
        """Return the index of the level that answers each row."""
        return _answering(self.confidences(), threshold, self.kind)

    def answers(self, answering: NDArray[np.int64]) -> RowScores:
        """Return each row's final scores."""
        combined = self.combined()
        return [combined[level][row] for row, level in enumerate(answering.tolist())]


def _answering(
    confidences: NDArray[np.float64], threshold: float, kind: TaskKind
) -> NDArray[np.int64]:
    sure = confidences >= threshold
    if kind == "regression":
        sure[:] = False
    sure[-1] = True
    first: NDArray[np.int64] = sure.argmax(axis=0)
    return first


def _fit_threshold(
    scores: Sequence[RowScores],
    targets: RowTargets,
    kind: TaskKind,
    weights: Sequence[float],
    decision: float | None,
    wanted: float,
) -> float:
    """Return the least threshold that reaches the wanted accuracy, or else the most accurate."""
    if kind == "regression":
        return 1.0
    visits = _Visits(scores, kind, weights)
    confidences = visits.confidences()
    # hits[level, row]: whether the answer is right if that level gives it.
    hits = np.array([_hits(rows, targets, kind, decision) for rows in visits.combined()])
    best_threshold, best_accuracy = 1.0, -1.0
    rows = np.arange(len(targets))
    for candidate in _candidates(confidences[:-1]):
        found = float(hits[_answering(confidences, candidate, kind), rows].mean())
        if found >= wanted:
            return candidate
        if found > best_accuracy:
            best_threshold, best_accuracy = candidate, found
    return best_threshold


def _candidates(confidences: NDArray[np.float64]) -> list[float]:
    # Between two neighbours: no row of the fit lies on the edge, where rounding decides.
    values = np.unique(confidences)
    between = (values[1:] + values[:-1]) / 2
    return [0.0, *between.tolist(), 1.0]


def _hits(
    scores: RowScores, targets: RowTargets, kind: TaskKind, decision: float | None
) -> NDArray[np.bool_]:
    """Tell of each row whether its answer is right, all its labels or tags."""
    if kind == "multi_label":
        cut = 0.5 if decision is None else decision
        right = [
            ((row >= cut) == (target > 0.5)).all()
            for row, target in zip(scores, targets, strict=True)
        ]
    else:
        right = [
            (row.argmax(axis=-1) == target).all()
            for row, target in zip(scores, targets, strict=True)
        ]
    return np.array(right, np.bool_)


def _fit_decision(scores: Sequence[RowScores], targets: RowTargets) -> float:
    """Return the probability, in steps of .05, with the most exact matches over all levels.

    The one nearest to one half where several are equally good.
    """
    grid = sorted((round(float(value), 2) for value in _DECISION_GRID), key=lambda v: abs(v - 0.5))
    return max(
        grid, key=lambda cut: sum(accuracy(rows, targets, "multi_label", cut) for rows in scores)
    )


def _negative_log_likelihood(
    logits: NDArray[np.float64], targets: NDArray[np.float64], kind: TaskKind
) -> float:
    if kind == "multi_label":
        signs = np.where(np.asarray(targets, np.float64) > 0.5, 1.0, -1.0)
        return float(np.logaddexp(0.0, -signs * logits).mean())
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_total = np.log(np.exp(shifted).sum(axis=1))
    return float((log_total - shifted[np.arange(len(shifted)), targets.astype(int)]).mean())


def _stack(
    scores: RowScores, targets: RowTargets, kind: TaskKind
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (num_items, num_labels) and the targets; the items of tagging are words."""
    if kind == "tagging":
        return (
            np.concatenate(list(scores)).astype(np.float64),
            np.concatenate(list(targets)).astype(np.float64),
        )
    return np.stack(list(scores)).astype(np.float64), np.stack(list(targets)).astype(np.float64)
