"""The dispatcher of the cascade (Tabi, sections on the dispatcher and the weighted ensemble).

Decides whether a level's calibrated output is answered or re-routed, and combines the outputs of
the levels that a query visited. Pure: no tensor library, no clock, no Kafka.

Where Tabi draws a scaled sigmoid of the confidence, we cut at the threshold that `petstream
calibrate` fitted on rows that were not trained on.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from messages.escalation import SmallLevelOutput
from messages.query import QueryParameters
from tasks.calibration import calibrated_scores, confidence, join_levels
from tasks.description import TaskDescription

Scores: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class LevelOutput:
    """The calibrated output of one level for one row, ensembled with the level before."""

    scores: Scores
    """`[num_labels]`; regression `[1]`; tagging `[num_words, num_labels]`; embedding
    `[dimensions]`."""
    confidence: float
    """In [0, 1]; 0 for a regression, which has no calibrated confidence yet, 1 for an embedding."""


def judge(
    task: TaskDescription, level: int, logits: Scores, small_output: SmallLevelOutput | None
) -> LevelOutput:
    """Calibrate a level's logits and ensemble them with the small level's carried output.

    The weights are the levels' accuracies on the calibration rows. Without a fitted cascade there
    is nothing to weigh by, and the larger level speaks alone. A tagging task is not ensembled:
    its levels may see different words, where one cuts the row earlier.

    Args:
        task: The row's task.
        level: The level that computed `logits`.
        logits: As the engine gives them, float32; of a tagging task only those of the tokens that
            speak for words (`tasks.word_tokens`), as it was calibrated on.
        small_output: What an escalated row carries.

    Raises:
        ValueError: If the task lacks one of the levels, or the carried scores are not one for
            each label.
    """
    temperature = task.cascade.temperatures[_position(task, level)] if task.cascade else 1.0
    scores = calibrated_scores(logits, temperature, task.kind)
    if small_output is not None and task.cascade is not None and task.kind != "tagging":
        small_scores = np.frombuffer(small_output.scores, dtype="<f4").astype(np.float32)
        weights = task.cascade.ensemble_weights
        pair = weights[_position(task, small_output.level)], weights[_position(task, level)]
        scores = join_levels(small_scores, scores, pair)
    return LevelOutput(scores, confidence(scores, task.kind))


def next_level(
    task: TaskDescription, level: int, output: LevelOutput, parameters: QueryParameters
) -> int | None:
    """Return the level that a row goes on to, or None when it is answered here.

    A row is answered by the last level, by the level that its query forces, and where the output
    is confident enough. `min_confidence` of the query replaces the fitted threshold; an
    `accuracy_target` that this level alone reached on the calibration rows is met here. A task
    without a fitted cascade goes on to its last level: an uncalibrated confidence says nothing.
    """
    position = _position(task, level)
    if parameters.level is not None or position == len(task.levels) - 1:
        return None
    if _is_met(task, position, output, parameters):
        return None
    return task.levels[position + 1].level


def _is_met(
    task: TaskDescription, position: int, output: LevelOutput, parameters: QueryParameters
) -> bool:
    if task.kind == "regression" or task.cascade is None:
        return False
    if parameters.min_confidence is not None:
        return output.confidence >= parameters.min_confidence
    target = parameters.accuracy_target
    if target is not None and task.cascade.accuracies[position] >= target:
        return True
    return output.confidence >= task.cascade.threshold


def _position(task: TaskDescription, level: int) -> int:
    """Return the index of `level` among the task's levels.

    Raises:
        ValueError: If the task has no such level.
    """
    for position, task_level in enumerate(task.levels):
        if task_level.level == level:
            return position
    raise ValueError(f"task {task.name} has no level {level}")
