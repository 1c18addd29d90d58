"""What the engine that serves makes of labelled rows: what a cascade is fitted to.

Thresholds lie close to some rows' confidence, so that they are fitted in the type that will serve.
"""

from pathlib import Path

import numpy as np
import torch

from tasks.artifact import Artifact
from tasks.bfloat16_record import passes_bfloat16
from tasks.training.artifact_model import encode_for_level
from tasks.training.evaluation import PerRow
from tasks.training.objectives import labelled
from tasks.training.rows import LabelledRows
from workers.engine import EngineRow
from workers.local_level import LocalLevel
from workers.precision import PrecisionChoice, precisions_of

_ROWS_PER_RUN = 512


def engine_logits(
    artifact: Artifact,
    level: int,
    backbone: Path,
    rows: LabelledRows,
    *,
    choice: PrecisionChoice = "float32",
    figures_file: Path | None = None,
) -> PerRow:
    """Return the logits of one level of an artifact for labelled rows.

    Args:
        artifact: The task.
        level: Which level of it.
        backbone: The folder of that level's backbone.
        rows: Of the task's kind.
        choice: What to compute in; `auto` as a worker of this machine would.
        figures_file: Where this machine's figures are kept. None: they are measured anew.

    Raises:
        ArtifactError: If the level is not valid, or was trained on other backbone weights.
        BadRows: If the rows are of another kind than the task, or have a label it does not know.
    """
    encoded = encode_for_level(artifact, level, backbone, rows)
    local = LocalLevel(backbone, precisions=precisions_of(choice), figures_file=figures_file)
    try:
        passes = passes_bfloat16(artifact, level)
        task = local.load(artifact, level, local.engine.precision_of(passes_bfloat16=passes))
        engine_rows = [EngineRow(task, np.array(row.token_ids, np.int64)) for row in encoded]
        logits = [
            found
            for first in range(0, len(engine_rows), _ROWS_PER_RUN)
            for found in local.engine.run(engine_rows[first : first + _ROWS_PER_RUN])
        ]
    finally:
        local.close()
    is_classes = rows.kind in ("single_label", "tagging")
    dtype = torch.int64 if is_classes else torch.float32
    pairs = [
        labelled(
            torch.from_numpy(found),
            torch.tensor(row.target[0] if rows.kind == "single_label" else row.target, dtype=dtype),
            rows.kind,
        )
        for found, row in zip(logits, encoded, strict=True)
    ]
    return PerRow([output for output, _ in pairs], [target for _, target in pairs], rows.kind)
