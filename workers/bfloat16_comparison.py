"""Compares a task's answers in bfloat16 with those in float32, row by row.

Computed by the engine itself, on any processor: one without bfloat16 rounds as one with it does,
only slowly.
"""

from collections.abc import Sequence

import numpy as np

from tasks.artifact import Artifact
from tasks.bfloat16_record import LevelComparison
from tasks.description import TaskDescription
from workers.local_level import LocalAnswer, LocalLevel, Text

MIN_COSINE = 0.999


def compare(
    local: LocalLevel, artifact: Artifact, level: int, texts: Sequence[Text], rows_from: str
) -> LevelComparison:
    """Answer texts in both types.

    Args:
        local: The level's backbone, in both precisions.
        artifact: The task.
        level: Which level.
        texts: At least one, pairs if the task takes pairs.
        rows_from: Where they are from.

    Raises:
        ArtifactError: If the level is not valid or was trained on other backbone weights.
        RowError: If a text cannot be run.
    """
    described = artifact.description.level(level)
    tasks = [local.load(artifact, level, precision) for precision in ("float32", "bfloat16")]
    full, rounded = (local.run([(task, text) for text in texts]) for task in tasks)
    pairs = list(zip(full, rounded, strict=True))
    logits = np.concatenate([answer.logits.reshape(-1) for answer in full])
    return LevelComparison(
        level=level,
        sha256=described.sha256,
        backbone=described.backbone.digest,
        num_rows=len(texts),
        rows_from=rows_from,
        same_answers=float(np.mean([_is_same(artifact.description, *pair) for pair in pairs])),
        largest_difference=max(float(np.abs(a.logits - b.logits).max()) for a, b in pairs),
        deviation=float(logits.std()),
        largest_confidence_difference=max(abs(a.confidence - b.confidence) for a, b in pairs),
    )


def _is_same(task: TaskDescription, full: LocalAnswer, rounded: LocalAnswer) -> bool:
    if task.kind == "regression":
        return True
    if task.kind == "tagging":
        return full.spans == rounded.spans
    if task.kind == "embedding":
        lengths = np.linalg.norm(full.logits) * np.linalg.norm(rounded.logits)
        return float(full.logits @ rounded.logits) >= MIN_COSINE * float(lengths)
    return set(full.answer.labels) == set(rounded.answer.labels)
