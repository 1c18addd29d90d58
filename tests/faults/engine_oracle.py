"""The oracle of a fault run: what the engine itself answers, without Kafka and without faults.

Float32 sums come out a little differently in another batch or with another matrix library, so
scores are compared within a tolerance, and a decision that hangs on less than that may go either
way. Everything else must be equal.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from messages.errors import ErrorAnswer
from messages.escalation import SmallLevelOutput
from messages.query import Query
from messages.query_codec import IncomingQuery
from messages.result import Result
from tasks.artifact import Artifact
from tasks.description import TaskDescription
from tasks.word_tokens import WordToken
from tests.kept_figures import kept_figures
from transport.records import Record
from workers.answers import DEFAULT_DECISION_THRESHOLD
from workers.backbone import Backbone
from workers.backbone_store import find
from workers.cascade import LevelOutput, judge, next_level
from workers.engine import Engine, EngineRow
from workers.levels import LEVEL_BACKBONES
from workers.row_tokenizer import RowTokenizer
from workers.tagging import character_spans

TOLERANCE = 1e-4
_ROWS_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class _Expected:
    task: TaskDescription
    outputs: tuple[LevelOutput, LevelOutput]
    goes_on: bool
    """Whether the small level's output is not enough."""
    is_close: bool
    """Whether that hangs on less than the tolerance."""
    words: tuple[list[WordToken], list[WordToken]]
    """Of a tagged row, at each level."""


class EngineOracle:
    """Knows the right answer to every query that it was prepared for."""

    def __init__(
        self, artifacts: Mapping[str, Artifact], models_dir: Path, queries: Sequence[Query]
    ) -> None:
        """Run all `queries` through both levels.

        Args:
            artifacts: The tasks that serve, by name.
            models_dir: Where the backbones are.
            queries: Of these tasks.
        """
        small = _rows(0, artifacts, models_dir, queries)
        large = _rows(1, artifacts, models_dir, queries)
        self._expected: dict[str, _Expected] = {}
        for query, small_row, large_row in zip(queries, small, large, strict=True):
            task = artifacts[query.task].description
            first = judge(task, 0, small_row.logits, None)
            carried = SmallLevelOutput(0, first.scores.tobytes(), first.confidence, "")
            threshold = task.cascade.threshold if task.cascade is not None else 2.0
            self._expected[query.id] = _Expected(
                task,
                (first, judge(task, 1, large_row.logits, carried)),
                goes_on=next_level(task, 0, first, query.parameters) is not None,
                is_close=abs(first.confidence - threshold) <= TOLERANCE,
                words=(small_row.words, large_row.words),
            )

    def complaint(
        self, incoming: IncomingQuery | None, _: Record, given: Result | ErrorAnswer
    ) -> str | None:
        """Say what is wrong with an answer, or None."""
        if incoming is None:
            return "nobody sent these bytes"
        if isinstance(given, ErrorAnswer):
            return f"{given.reason}: {given.message}"
        expected = self._expected[incoming.query.id]
        if given.level != int(expected.goes_on) and not expected.is_close:
            return f"answered by level {given.level}"
        output = expected.outputs[given.level]
        if abs(given.confidence - output.confidence) > TOLERANCE:
            return f"confidence {given.confidence}, the engine says {output.confidence}"
        if expected.task.kind == "tagging":
            return _wrong_tags(expected.task, output, expected.words[given.level], given)
        return _wrong_labels(expected.task, output, given)


def _wrong_tags(
    task: TaskDescription, output: LevelOutput, words: list[WordToken], given: Result
) -> str | None:
    ranked = np.sort(output.scores, axis=-1)
    if (ranked[:, -1] - ranked[:, -2] <= TOLERANCE).any():
        return None
    expected = character_spans(words, output.scores, task.labels)
    return None if given.tags == expected else f"tags {given.tags}, the engine says {expected}"


def _wrong_labels(task: TaskDescription, output: LevelOutput, given: Result) -> str | None:
    scores = dict(zip(task.labels, output.scores.tolist(), strict=True))
    for label, score in zip(given.labels, given.scores, strict=True):
        if abs(scores[label] - score) > TOLERANCE:
            return f"{label} {score}, the engine says {scores[label]}"
    if task.kind == "multi_label":
        threshold = DEFAULT_DECISION_THRESHOLD
        if task.cascade is not None and task.cascade.decision_threshold is not None:
            threshold = task.cascade.decision_threshold
        due = {label for label, score in scores.items() if score >= threshold + TOLERANCE}
        allowed = {label for label, score in scores.items() if score >= threshold - TOLERANCE}
        is_right = due <= set(given.labels) <= allowed
    else:
        best = max(scores.values())
        is_right = len(given.labels) == 1 and scores[given.labels[0]] >= best - TOLERANCE
    return None if is_right else f"labels {given.labels}, not the engine's"


@dataclass(frozen=True, slots=True)
class _Row:
    """What one level makes of one query."""

    logits: NDArray[np.float32]
    """Shape (num_labels,); of a tagged row (num_words, num_labels)."""
    words: list[WordToken]


def _rows(
    level: int, artifacts: Mapping[str, Artifact], models_dir: Path, queries: Sequence[Query]
) -> list[_Row]:
    """Run every query through one level."""
    folder = find(LEVEL_BACKBONES[level], models_dir)
    engine = Engine(Backbone.load(folder), figures_file=kept_figures())
    loaded = {}
    for name, artifact in artifacts.items():
        weights = artifact.load_level(level, engine.backbone.shape)
        loaded[name] = engine.load_task(artifact.description, level, weights)
    tokenizer = RowTokenizer(folder)
    tokens = [
        tokenizer.encode(query.text, None, loaded[query.task].level.max_tokens) for query in queries
    ]
    rows = [
        EngineRow(loaded[query.task], row.token_ids)
        for query, row in zip(queries, tokens, strict=True)
    ]
    logits = [found for some in _in_parts(rows) for found in engine.run(some)]
    engine.close()
    return [
        _Row(found[[word.token for word in row.words]] if found.ndim == 2 else found, row.words)
        for found, row in zip(logits, tokens, strict=True)
    ]


def _in_parts(rows: Sequence[EngineRow]) -> Iterator[list[EngineRow]]:
    remaining = iter(rows)
    while part := list(islice(remaining, _ROWS_AT_ONCE)):
        yield part
