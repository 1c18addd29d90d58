"""What the cascade computes with a level's logits at run time: NumPy only.

Calibrated probabilities are softmax (single label, tagging) or sigmoid (multi-label) of the logits
over the level's temperature (Guo et al. 2017). The confidence is ours where Tabi says nothing:

    single label   the largest probability (Tabi, section on the dispatcher)
    multi-label    min over labels of max(p, 1 - p): the row is as sure as its most doubtful label.
                   The product over the labels would shrink with their number, so that a threshold
                   would mean something else for 5 and for 60 labels
    tagging        min over words of the largest probability
    embedding      1: a vector is not right or wrong, and there is no other level to ask
    regression     none yet: a value without a spread says nothing about its error, so it is 0 and
                   every row goes on to the large level

The constants are fitted in `tasks.calibration_fit`.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from messages.task_event import TaskKind


def calibrated_scores(
    logits: NDArray[np.float32], temperature: float, kind: TaskKind
) -> NDArray[np.float32]:
    """Turn logits into calibrated probabilities; values and vectors stay as they are.

    Args:
        logits: Shape (..., num_outputs), finite.
        temperature: Greater than 0; 1 leaves the model's own probabilities.
        kind: Of the task.

    Returns:
        Shape (..., num_outputs), float32; computed in float64.

    Raises:
        ValueError: If the temperature is not a positive finite number.
    """
    if kind in ("regression", "embedding"):
        return logits.astype(np.float32)
    if not (np.isfinite(temperature) and temperature > 0):
        raise ValueError(f"expected a positive temperature, got {temperature}")
    scaled = logits.astype(np.float64) / temperature
    if kind == "multi_label":
        # exp of a non-positive number only: no overflow for any logit.
        decay = np.exp(-np.abs(scaled))
        numerators: NDArray[np.float64] = np.where(scaled >= 0, 1.0, decay)
        chances: NDArray[np.float32] = (numerators / (1.0 + decay)).astype(np.float32)
        return chances
    exponentials = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    totals: NDArray[np.float64] = exponentials.sum(axis=-1, keepdims=True)
    shares: NDArray[np.float32] = (exponentials / totals).astype(np.float32)
    return shares


def confidence(scores: NDArray[np.float32], kind: TaskKind) -> float:
    """Return how sure the scores of one row are, in [0, 1].

    Args:
        scores: Calibrated, shape (num_labels,); tagging (num_words, num_labels), one row for
            each word (of its first token): special tokens have no label and no say.
        kind: Of the task.
    """
    if kind == "embedding":
        return 1.0
    if kind == "regression" or scores.size == 0:
        return 0.0
    if kind == "multi_label":
        return float(np.maximum(scores, 1.0 - scores).min())
    return float(scores.max(axis=-1).min())


def join_levels(
    before: NDArray[np.float32], now: NDArray[np.float32], weights: tuple[float, float]
) -> NDArray[np.float32]:
    """Return a level's scores ensembled with those that the levels before it came to.

    Args:
        before: Of the levels before.
        now: Of this level, of the same shape.
        weights: Of the level before and of this one. Where both are 0, neither was ever right on
            the rows that they were fitted on, and the later level speaks alone.

    Raises:
        ValueError: If the shapes differ or a weight is negative or not finite.
    """
    return ensemble([before, now], weights if any(weights) else (0.0, 1.0))


def ensemble(
    scores: Sequence[NDArray[np.float32]], weights: Sequence[float]
) -> NDArray[np.float32]:
    """Return the weighted mean of the scores of the levels that a row visited (Tabi).

    Args:
        scores: One array for each level, all of one shape.
        weights: One for each level, not negative, not all 0.

    Raises:
        ValueError: If the numbers or shapes of the arrays and weights do not match.
    """
    if len(scores) != len(weights) or not scores:
        raise ValueError(f"expected as many weights as scores, got {len(weights)}, {len(scores)}")
    shapes = {array.shape for array in scores}
    if len(shapes) > 1:
        raise ValueError(f"expected scores of one shape, got {sorted(shapes)}")
    total = float(sum(weights))
    if not (np.isfinite(total) and total > 0 and min(weights) >= 0):
        raise ValueError(f"expected weights that are not negative and not all 0, got {weights}")
    mean = np.zeros(scores[0].shape, np.float64)
    for array, weight in zip(scores, weights, strict=True):
        mean += array.astype(np.float64) * (weight / total)
    return mean.astype(np.float32)
