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
from tokenizers import Tokenizer

from messages.errors import ErrorAnswer
from messages.escalation import SmallLevelOutput
from messages.query import Query
from messages.query_codec import IncomingQuery
from messages.result import Result
from tasks.artifact import Artifact
from tasks.description import TaskDescription
from transport.records import Record
from workers.answers import DEFAULT_DECISION_THRESHOLD
from workers.backbone import Backbone
from workers.backbone_store import find
from workers.cascade import LevelOutput, judge, next_level
from workers.engine import Engine, EngineRow
from workers.levels import LEVEL_BACKBONES

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
        small = _logits(0, artifacts, models_dir, queries)
        large = _logits(1, artifacts, models_dir, queries)
        self._expected: dict[str, _Expected] = {}
        for query, small_logits, large_logits in zip(queries, small, large, strict=True):
            task = artifacts[query.task].description
            first = judge(task, 0, small_logits, None)
            carried = SmallLevelOutput(0, first.scores.tobytes(), first.confidence, "")
            threshold = task.cascade.threshold if task.cascade is not None else 2.0
            self._expected[query.id] = _Expected(
                task,
                (first, judge(task, 1, large_logits, carried)),
                goes_on=next_level(task, 0, first, query.parameters) is not None,
                is_close=abs(first.confidence - threshold) <= TOLERANCE,
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
        return _wrong_labels(expected.task, output, given)


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


def _logits(
    level: int, artifacts: Mapping[str, Artifact], models_dir: Path, queries: Sequence[Query]
) -> list[NDArray[np.float32]]:
    """Return the engine's logits of every query at one level."""
    folder = find(LEVEL_BACKBONES[level], models_dir)
    engine = Engine(Backbone.load(folder))
    loaded = {}
    for name, artifact in artifacts.items():
        weights = artifact.load_level(level, engine.backbone.shape)
        loaded[name] = engine.load_task(artifact.description, level, weights)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    rows = []
    for query in queries:
        task = loaded[query.task]
        tokenizer.enable_truncation(task.level.max_tokens)
        ids = tokenizer.encode(query.text).ids
        rows.append(EngineRow(task, np.array(ids, dtype=np.int64)))
    logits = [row for some in _in_parts(rows) for row in engine.run(some)]
    engine.close()
    return logits


def _in_parts(rows: Sequence[EngineRow]) -> Iterator[list[EngineRow]]:
    remaining = iter(rows)
    while part := list(islice(remaining, _ROWS_AT_ONCE)):
        yield part
