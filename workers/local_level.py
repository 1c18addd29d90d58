"""One level without Kafka: a backbone, its engine and tasks, and the answers of single rows.

The same engine, the same tokens and the same calibration as behind Kafka; what is absent is the
cascade's way from one level to the next.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from messages.query import NO_PARAMETERS, QueryParameters
from tasks.artifact import Artifact
from workers.answers import Answer, answer
from workers.backbone import Backbone
from workers.cascade import judge
from workers.engine import Engine, EngineRow
from workers.errors import RowError
from workers.loaded_task import LoadedTask
from workers.precision import Precision
from workers.row_tokenizer import RowTokenizer
from workers.tagging import character_spans

Text = str | tuple[str, str]
"""A text, or a text and its pair."""


@dataclass(frozen=True, slots=True, eq=False)
class LocalAnswer:
    """What one level makes of one row."""

    logits: NDArray[np.float32]
    """Shape (num_outputs,); of tagging tasks (num_tokens, num_outputs). Of embedding tasks what the
    head gives, not normalised."""
    scores: NDArray[np.float32]
    """Calibrated; of tagging tasks (num_words, num_labels)."""
    confidence: float
    answer: Answer
    spans: tuple[tuple[int, int, str], ...]
    """Of tagging tasks: first character, behind the last, label."""
    num_tokens: int


class LocalLevel:
    """A backbone in memory that runs rows of any tasks trained on it."""

    def __init__(
        self,
        backbone_folder: Path,
        *,
        threads: int | None = None,
        precisions: Sequence[Precision] = ("float32",),
        figures_file: Path | None = None,
    ) -> None:
        """Load the backbone and choose the engine's back ends.

        Args:
            backbone_folder: As the backbone store or Hugging Face has it.
            threads: How many cores to use; None is every core this process may run on.
            precisions: What rows can be computed in, at least one.
            figures_file: Where this machine's figures are kept. None: they are measured anew.

        Raises:
            BackboneError: If the folder does not hold a backbone that the engine runs.
        """
        self.engine = Engine(
            Backbone.load(backbone_folder),
            threads,
            precisions=precisions,
            figures_file=figures_file,
        )
        self._tokenizer = RowTokenizer(backbone_folder)

    def load(
        self, artifact: Artifact, level: int, precision: Precision | None = None
    ) -> LoadedTask:
        """Validate and load one level of a task.

        Args:
            artifact: The task.
            level: Which level of it.
            precision: What its rows are computed in. None: the engine's first.

        Raises:
            ArtifactError: If it is not valid or was trained on other backbone weights.
            TaskUnsupportedError: If an op stands where the engine has no place for it.
        """
        backbone = self.engine.backbone
        weights = artifact.load_level(level, backbone.shape, backbone_digest=backbone.digest)
        return self.engine.load_task(artifact.description, level, weights, precision)

    def run(
        self,
        rows: Sequence[tuple[LoadedTask, Text]],
        parameters: QueryParameters = NO_PARAMETERS,
    ) -> list[LocalAnswer]:
        """Answer rows, all in one batch.

        Args:
            rows: Tasks of this level with their texts.
            parameters: As a query's.

        Raises:
            RowError: If a row cannot be run; no row was run then.
        """
        tokens = []
        for task, text in rows:
            is_pair = not isinstance(text, str)
            if is_pair != task.description.takes_pair:
                wants = "a pair of texts" if task.description.takes_pair else "one text"
                raise RowError(f"task {task.description.name} takes {wants}")
            first, second = (text, None) if isinstance(text, str) else text
            level = task.level
            tokens.append(
                self._tokenizer.encode(first, second, level.max_tokens, level.truncation or "head")
            )
        logits = self.engine.run(
            [EngineRow(task, row.token_ids) for (task, _), row in zip(rows, tokens, strict=True)]
        )
        answers = []
        for (task, _), row, of_row in zip(rows, tokens, logits, strict=True):
            described, labels = task.description, task.description.labels
            is_tagging = described.kind == "tagging"
            spoken = of_row[[word.token for word in row.words]] if is_tagging else of_row
            output = judge(described, task.level.level, spoken, None)
            answers.append(
                LocalAnswer(
                    logits=of_row,
                    scores=output.scores,
                    confidence=output.confidence,
                    answer=Answer() if is_tagging else answer(described, output.scores, parameters),
                    spans=character_spans(row.words, output.scores, labels) if is_tagging else (),
                    num_tokens=len(row.token_ids),
                )
            )
        return answers

    def close(self) -> None:
        """Stop the compute threads."""
        self.engine.close()
