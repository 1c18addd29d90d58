"""`bfloat16.json`: whether a task answers in bfloat16 as it does in float32.

`petstream tasks add` and `compare` measure it and workers go by it. It lies beside the task's
description and is no part of it: a task is the same with and without.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from messages.limits import MAX_LEVEL
from tasks.artifact import Artifact
from tasks.artifact_writer import write_durably
from tasks.description import Digest, Probability
from tasks.errors import ArtifactError, ArtifactMissing
from tasks.safe_folder import SafeFolder

RECORD_FILE = "bfloat16.json"
MAX_RECORD_BYTES = 64 << 10

MIN_SAME_ANSWERS = 0.98
"""Of the rows; those that change are nearly undecided in float32 too."""
MAX_DIFFERENCE = 0.1
"""Of logits, over their standard deviation. Rounding costs some 0.03 (MiniLM-L6)."""

logger = logging.getLogger(__name__)

NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class LevelComparison(BaseModel):
    """What bfloat16 makes of one level of a task."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    level: Annotated[int, Field(ge=0, le=MAX_LEVEL)]
    sha256: Annotated[str, Field(pattern=r"\A[0-9a-f]{64}\z")]
    """Of the level's weight file."""
    backbone: Digest
    num_rows: Annotated[int, Field(ge=1)]
    rows_from: Annotated[str, Field(min_length=1, max_length=256)]
    """Name of a file of rows, or `built-in`."""
    same_answers: Probability
    """Share of rows: the same best label, labels or tags; of embeddings, vectors whose cosine is
    at least 0.999; of regressions all."""
    largest_difference: NotNegative
    """Of a logit."""
    deviation: NotNegative
    """Standard deviation of the float32 logits."""
    largest_confidence_difference: NotNegative

    @property
    def passes(self) -> bool:
        """Whether the level may be served in bfloat16."""
        return (
            self.same_answers >= MIN_SAME_ANSWERS
            and self.largest_difference <= MAX_DIFFERENCE * self.deviation
        )


class Bfloat16Record(BaseModel):
    """What the file holds."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    format: Literal[1] = 1
    levels: Annotated[tuple[LevelComparison, ...], Field(max_length=8)]


def comparison_of(artifact: Artifact, level: int) -> LevelComparison | None:
    """Return what was found of a level's very weights; None where nothing was, or of others."""
    described = artifact.description.level(level)
    for found in _read(artifact):
        pins = (found.level, found.sha256, found.backbone)
        if pins == (level, described.sha256, described.backbone.digest):
            return found
    return None


def passes_bfloat16(artifact: Artifact, level: int) -> bool:
    """Return whether a level was compared and may be served in bfloat16."""
    found = comparison_of(artifact, level)
    return found is not None and found.passes


def comparisons_of(artifact: Artifact) -> list[LevelComparison]:
    """Return what was found of each level's very weights, of those that anything was found of."""
    found = [comparison_of(artifact, level.level) for level in artifact.description.levels]
    return [comparison for comparison in found if comparison is not None]


def write_record(folder: Path, levels: Sequence[LevelComparison]) -> None:
    """Write the file beside the description, replacing an older one at once or not at all."""
    record = Bfloat16Record(levels=tuple(levels))
    raw = json.dumps(record.model_dump(mode="json"), indent=2) + "\n"
    partial = folder / f".{RECORD_FILE}.partial"
    partial.unlink(missing_ok=True)  # left by a crash
    write_durably(partial, raw.encode())
    partial.replace(folder / RECORD_FILE)


def _read(artifact: Artifact) -> tuple[LevelComparison, ...]:
    try:
        with SafeFolder(artifact.base, artifact.inner) as folder:
            raw = folder.read(RECORD_FILE, MAX_RECORD_BYTES)
        return Bfloat16Record.model_validate_json(raw).levels
    except ArtifactMissing:
        return ()
    except (ArtifactError, ValidationError) as error:
        # It only says how to serve: a task is not refused for it.
        logger.warning("%s of %s ignored: %s", RECORD_FILE, artifact.folder, error)
        return ()
