"""Fitting of the cascade: what is found on rows whose right constants are known."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from messages.task_event import TaskKind
from tasks.calibration import calibrated_scores
from tasks.calibration_fit import (
    DEFAULT_MARGIN,
    accuracy,
    calibration_error,
    fit_cascade,
    fit_temperature,
    measure_cascade,
)
from tasks.description import Cascade

NUM_ROWS = 1500


def _classes(
    seed: int, sharpness: float
) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float64]]]:
    """Rows of 4 classes whose labels are drawn from the softmax of the logits themselves."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 2, (NUM_ROWS, 4))
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = [np.array(generator.choice(4, p=row), np.float64) for row in chances]
    return [(row * sharpness).astype(np.float32) for row in logits], labels


def _two_levels(seed: int) -> tuple[list[list[NDArray[np.float32]]], list[NDArray[np.float64]]]:
    """A small level that errs where it is unsure, and a large one that errs less."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 5, NUM_ROWS)
    levels = []
    for noise in (2.0, 0.8):
        logits = generator.normal(0, noise, (NUM_ROWS, 5))
        logits[np.arange(NUM_ROWS), labels] += 4.0
        levels.append([row.astype(np.float32) for row in logits])
    return levels, [np.array(label, np.float64) for label in labels]


@pytest.mark.parametrize("sharpness", [0.25, 1.0, 5.0])
def test_the_temperature_undoes_a_known_sharpness(sharpness: float) -> None:
    """Logits that are `sharpness` times the true ones have that temperature."""
    logits, labels = _classes(1, sharpness)

    found = fit_temperature(logits, labels, "single_label")

    assert found == pytest.approx(sharpness, rel=0.1)


def test_the_temperature_of_labels_that_are_independent() -> None:
    """Multi-label: sigmoid logits three times too large have temperature 3."""
    generator = np.random.default_rng(5)
    logits = generator.normal(0, 2, (NUM_ROWS, 6))
    drawn = generator.random(logits.shape) < 1 / (1 + np.exp(-logits))
    rows = [(row * 3).astype(np.float32) for row in logits]

    found = fit_temperature(rows, list(drawn.astype(np.float64)), "multi_label")

    assert found == pytest.approx(3.0, rel=0.1)


def test_calibration_lowers_the_calibration_error() -> None:
    """Overconfident logits have a large error; the fitted temperature removes most of it."""
    logits, labels = _classes(2, 4.0)
    temperature = fit_temperature(logits, labels, "single_label")

    before = calibration_error(
        [calibrated_scores(row, 1.0, "single_label") for row in logits], labels, "single_label"
    )
    after = calibration_error(
        [calibrated_scores(row, temperature, "single_label") for row in logits],
        labels,
        "single_label",
    )

    assert before > 0.15
    assert after < 0.03


def test_the_threshold_reaches_its_target_and_is_the_least_that_does() -> None:
    """On the fitted rows the target is met; a slightly lower threshold misses it."""
    levels, labels = _two_levels(3)

    cascade = fit_cascade(levels, labels, "single_label")
    found = measure_cascade(levels, labels, "single_label", cascade)
    lower = cascade.model_copy(update={"threshold": cascade.threshold - 0.01})
    missed = measure_cascade(levels, labels, "single_label", lower)

    assert cascade.target == pytest.approx(cascade.accuracies[1] - DEFAULT_MARGIN)
    assert found.level_accuracies[0] < cascade.target
    assert found.cascade_accuracy >= cascade.target
    assert missed.cascade_accuracy < cascade.target
    assert 0.05 < found.escalated_share < 0.9
    assert sum(found.answered_shares) == pytest.approx(1.0)


def test_weights_follow_the_accuracies() -> None:
    """Tabi: each level weighs what its profiled accuracy is."""
    levels, labels = _two_levels(4)

    cascade = fit_cascade(levels, labels, "single_label")

    assert cascade.accuracies[0] < cascade.accuracies[1]
    np.testing.assert_allclose(
        cascade.ensemble_weights, np.array(cascade.accuracies) / sum(cascade.accuracies)
    )


def test_a_target_that_the_small_level_meets_sends_nothing_on() -> None:
    """The least threshold is 0 then."""
    levels, labels = _two_levels(6)

    cascade = fit_cascade(levels, labels, "single_label", target=0.3)

    assert cascade.threshold == 0.0
    assert measure_cascade(levels, labels, "single_label", cascade).escalated_share == 0.0


def test_a_target_out_of_reach_gives_the_most_accurate_threshold() -> None:
    """No other threshold of a fine grid is more accurate."""
    levels, labels = _two_levels(7)

    cascade = fit_cascade(levels, labels, "single_label", target=1.0)
    best = measure_cascade(levels, labels, "single_label", cascade).cascade_accuracy

    for threshold in np.linspace(0, 1, 21):
        other = cascade.model_copy(update={"threshold": float(threshold)})
        assert measure_cascade(levels, labels, "single_label", other).cascade_accuracy <= best


def test_multi_label_decides_where_most_rows_are_exactly_right() -> None:
    """Labels that are given too rarely at .5 get a lower decision threshold."""
    generator = np.random.default_rng(8)
    wanted = (generator.random((NUM_ROWS, 3)) < 0.4).astype(np.float64)
    # Present labels score about .35, absent ones about .1; the temperature cannot move the order.
    logits = np.where(wanted > 0, -0.6, -2.2) + generator.normal(0, 0.3, wanted.shape)
    rows = [row.astype(np.float32) for row in logits]

    cascade = fit_cascade([rows], list(wanted), "multi_label")
    scores = [calibrated_scores(row, cascade.temperatures[0], "multi_label") for row in rows]

    assert cascade.decision_threshold is not None
    assert cascade.decision_threshold < 0.5
    assert accuracy(scores, list(wanted), "multi_label", cascade.decision_threshold) > 0.95
    assert accuracy(scores, list(wanted), "multi_label", 0.5) < 0.6


def test_tagging_answers_a_row_by_its_least_sure_word() -> None:
    """Rows with an unsure, wrong word go on; the sure ones stay; the large level is right."""
    sure, unsure = np.array([5.0, 0.0], np.float32), np.array([0.2, 0.0], np.float32)
    small = [np.stack([sure, sure]), np.stack([sure, unsure])] * 50
    targets: list[NDArray[np.float64]] = [np.array([0.0, 0.0]), np.array([0.0, 1.0])] * 50
    large = [np.stack([sure, sure]), np.stack([sure, sure[::-1]])] * 50

    cascade = fit_cascade([small, large], targets, "tagging")
    found = measure_cascade([small, large], targets, "tagging", cascade)

    assert found.level_accuracies == (0.5, 1.0)
    assert found.cascade_accuracy == 1.0
    assert found.escalated_share == 0.5


def test_a_regression_sends_every_row_on() -> None:
    """A value has no confidence yet."""
    generator = np.random.default_rng(9)
    truth = generator.normal(0, 1, 200)
    levels = [
        [np.array([value], np.float32) for value in truth + generator.normal(0, noise, 200)]
        for noise in (0.5, 0.1)
    ]

    cascade = fit_cascade(levels, [np.array([value]) for value in truth], "regression")
    found = measure_cascade(levels, [np.array([value]) for value in truth], "regression", cascade)

    assert cascade.temperatures == (1.0, 1.0)
    assert found.escalated_share == 1.0
    assert found.level_accuracies[0] < found.level_accuracies[1]


@pytest.mark.parametrize("kind", ["single_label", "regression"])
def test_no_rows_are_refused(kind: TaskKind) -> None:
    """There is nothing to fit to."""
    empty: Sequence[NDArray[np.float32]] = []

    with pytest.raises(ValueError, match="at least one"):
        fit_cascade([empty], [], kind)


def test_the_cascade_is_one_the_description_accepts() -> None:
    """What is fitted passes the strict model that task.json is read with."""
    levels, labels = _two_levels(10)

    cascade = fit_cascade(levels, labels, "single_label")

    assert Cascade.model_validate_json(cascade.model_dump_json()) == cascade
