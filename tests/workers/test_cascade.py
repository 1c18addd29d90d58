"""When a row is answered, when it goes on, and how two levels speak together."""

import numpy as np
import pytest

from messages.escalation import SmallLevelOutput
from messages.query import QueryParameters
from messages.task_event import TaskKind
from tasks.description import TaskDescription
from workers.cascade import LevelOutput, judge, next_level

LABELS = ("a", "b", "c")


def make_task(
    kind: TaskKind = "single_label", *, levels: tuple[int, ...] = (0, 1), fitted: bool = True
) -> TaskDescription:
    digest = "sha256:" + 64 * "0"
    described = [
        {
            "level": level,
            "backbone": {"name": "minilm-l3", "digest": digest},
            "pet": {"kind": "bitfit"},
            "pooling": "none" if kind == "tagging" else "mean",
            "max_tokens": 64,
            "file": f"level-{level}.safetensors",
            "sha256": 64 * "0",
        }
        for level in levels
    ]
    cascade = {
        "temperatures": (2.0, 1.0, 1.0)[: len(levels)],
        "threshold": 0.8,
        "ensemble_weights": {1: (1.0,), 2: (0.25, 0.75), 3: (0.0, 0.0, 1.0)}[len(levels)],
        "accuracies": (0.9, 0.95, 0.96)[: len(levels)],
        "decision_threshold": 0.5 if kind == "multi_label" else None,
        "fitted_on_rows": 100,
        "target": 0.94,
    }
    return TaskDescription.model_validate(
        {
            "format": 1,
            "name": "t",
            "revision": 1,
            "kind": kind,
            "labels": LABELS if kind != "regression" else LABELS[:1],
            "takes_pair": False,
            "source": "",
            "licence": "",
            "levels": tuple(described),
            "cascade": cascade if fitted else None,
        }
    )


def output_with(confidence: float) -> LevelOutput:
    return LevelOutput(np.array([confidence, 1 - confidence, 0], np.float32), confidence)


@pytest.mark.parametrize(("confidence", "goes_to"), [(0.79, 1), (0.8, None), (0.99, None)])
def test_the_threshold_decides(confidence: float, goes_to: int | None) -> None:
    """From the fitted threshold on a row is answered, below it goes on."""
    onward = next_level(make_task(), 0, output_with(confidence), QueryParameters())

    assert onward == goes_to


def test_min_confidence_replaces_the_threshold() -> None:
    """The query's own wish counts, both ways."""
    task, output = make_task(), output_with(0.85)

    assert next_level(task, 0, output, QueryParameters(min_confidence=0.9)) == 1
    assert next_level(task, 0, output_with(0.5), QueryParameters(min_confidence=0.4)) is None


def test_an_accuracy_that_the_small_level_reached_is_answered_there() -> None:
    """A target below the small level's own accuracy needs no large level."""
    task, doubtful = make_task(), output_with(0.1)

    assert next_level(task, 0, doubtful, QueryParameters(accuracy_target=0.9)) is None
    assert next_level(task, 0, doubtful, QueryParameters(accuracy_target=0.93)) == 1


def test_the_last_level_and_a_forced_level_answer() -> None:
    """There is nowhere to go from the last level; a forced level is final."""
    doubtful = output_with(0.1)

    assert next_level(make_task(), 1, doubtful, QueryParameters()) is None
    assert next_level(make_task(levels=(0,)), 0, doubtful, QueryParameters()) is None
    assert next_level(make_task(), 0, doubtful, QueryParameters(level=0)) is None


@pytest.mark.parametrize("kind", ["single_label", "regression"])
def test_without_a_calibrated_confidence_the_large_level_answers(kind: TaskKind) -> None:
    """Neither an unfitted cascade nor a regression may stop at the small level."""
    task = make_task(kind, fitted=kind == "regression")

    assert next_level(task, 0, output_with(1.0), QueryParameters()) == 1


def test_a_level_that_the_task_lacks_is_an_error() -> None:
    """A batch for a level that the task has no weights for is a bug, not a guess."""
    with pytest.raises(ValueError, match="no level 1"):
        next_level(make_task(levels=(0,)), 1, output_with(1.0), QueryParameters())


def test_logits_are_divided_by_the_levels_temperature() -> None:
    """Level 0 has temperature 2: its confidence is the softmax of half the logits."""
    logits = np.array([2.0, 0.0, 0.0], np.float32)

    output = judge(make_task(), 0, logits, None)

    assert output.confidence == pytest.approx(np.e / (np.e + 2), abs=1e-6)
    assert output.scores.sum() == pytest.approx(1, abs=1e-6)


def test_the_large_level_speaks_with_the_small_one_by_weight() -> None:
    """An escalated row's scores are 1/4 of the small level's and 3/4 of the large level's."""
    small = np.array([0.6, 0.4, 0.0], "<f4")
    carried = SmallLevelOutput(level=0, scores=small.tobytes(), confidence=0.6, batch_id="b")
    logits = np.array([0.0, 50.0, 0.0], np.float32)

    output = judge(make_task(), 1, logits, carried)

    assert output.scores == pytest.approx([0.15, 0.85, 0.0], abs=1e-6)


def test_two_levels_without_weight_do_not_fail_the_row() -> None:
    """Weights are 0 where a level was never right on the calibration rows: the later one speaks."""
    small = np.array([1.0, 0.0, 0.0], "<f4")
    carried = SmallLevelOutput(level=0, scores=small.tobytes(), confidence=1.0, batch_id="b")
    logits = np.array([0.0, 50.0, 0.0], np.float32)

    output = judge(make_task(levels=(0, 1, 2)), 1, logits, carried)

    assert output.scores == pytest.approx([0, 1, 0], abs=1e-6)


def test_an_unfitted_cascade_lets_the_large_level_speak_alone() -> None:
    """Without accuracies there is nothing to weigh by."""
    carried = SmallLevelOutput(0, np.array([1, 0, 0], "<f4").tobytes(), 1.0, "b")

    output = judge(make_task(fitted=False), 1, np.array([0, 50, 0], np.float32), carried)

    assert output.scores == pytest.approx([0, 1, 0], abs=1e-6)
