"""Calibration of an artifact: its levels' logits for labelled rows, and the cascade they fit."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tasks.artifact import Artifact
from tasks.artifact_writer import replace_cascade
from tasks.calibration_fit import CascadeFigures, fit_cascade, measure_cascade
from tasks.training.evaluation import PerRow
from tasks.training.rows import LabelledRows

LevelLogits = Callable[[Artifact, int, Path, LabelledRows], PerRow]
"""Computes the logits of one level of an artifact for rows, over a backbone's folder."""


@dataclass(frozen=True, slots=True)
class CalibratedTask:
    """An artifact with its new cascade."""

    artifact: Artifact
    """As it lies in the folder now; its digest is another than before."""
    figures: CascadeFigures
    """Of the cascade on the rows it was fitted to."""


def calibrate_task(
    artifact: Artifact,
    backbones: Mapping[str, Path],
    rows: LabelledRows,
    target: float | None = None,
    *,
    level_logits: LevelLogits,
    on_level: Callable[[int], None] = lambda level: None,
) -> CalibratedTask:
    """Fit an artifact's cascade to labelled rows and write it into its folder.

    Args:
        artifact: Any number of levels.
        backbones: Hugging Face folders, by the names of the levels' backbones.
        rows: Not trained on.
        target: Accuracy that the cascade should reach; None: the last level's, less half a point.
        level_logits: The engine that will serve the task.
        on_level: Called with each level before its logits are computed.

    Raises:
        ArtifactError: If a level is not valid, or was trained on other backbone weights.
        BadRows: If the rows are of another kind than the task, or have a label it does not know.
    """
    kind = artifact.description.kind
    per_level = []
    for described in artifact.description.levels:
        on_level(described.level)
        folder = backbones[described.backbone.name]
        per_level.append(level_logits(artifact, described.level, folder, rows))
    logits = [found.outputs for found in per_level]
    targets = per_level[0].targets
    cascade = fit_cascade(logits, targets, kind, target)
    written = replace_cascade(artifact.folder, cascade)
    return CalibratedTask(written, measure_cascade(logits, targets, kind, cascade))
