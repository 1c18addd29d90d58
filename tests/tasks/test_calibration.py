"""Calibrated scores, confidence and the ensemble: what the cascade computes at run time."""

import subprocess
import sys

import numpy as np
import pytest

from messages.task_event import TaskKind
from tasks.calibration import calibrated_scores, confidence, ensemble, join_levels


def _row(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_softmax_of_scaled_logits() -> None:
    scores = calibrated_scores(_row(2.0, 0.0), 2.0, "single_label")

    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, [np.e / (1 + np.e), 1 / (1 + np.e)], rtol=1e-6)


def test_temperature_lowers_the_confidence_and_keeps_the_label() -> None:
    logits = _row(3.0, 1.0, -2.0)
    sharp = calibrated_scores(logits, 1.0, "single_label")
    soft = calibrated_scores(logits, 4.0, "single_label")

    assert confidence(soft, "single_label") < confidence(sharp, "single_label")
    assert int(soft.argmax()) == int(sharp.argmax()) == 0


@pytest.mark.parametrize("kind", ["single_label", "multi_label", "tagging"])
def test_huge_logits_stay_finite(kind: TaskKind) -> None:
    logits = _row(3e38, -3e38, 0.0)

    scores = calibrated_scores(logits if kind != "tagging" else logits[None], 0.5, kind)

    assert np.isfinite(scores).all()
    assert scores.min() >= 0
    assert scores.max() <= 1


def test_multi_label_is_as_sure_as_its_most_doubtful_label() -> None:
    scores = calibrated_scores(_row(0.0, 9.0, -9.0), 1.0, "multi_label")

    assert confidence(scores, "multi_label") == pytest.approx(0.5)


def test_tagging_is_as_sure_as_its_most_doubtful_word() -> None:
    scores = calibrated_scores(np.array([[9, 0], [0, 0.5]], np.float32), 1.0, "tagging")

    assert confidence(scores, "tagging") == pytest.approx(1 / (1 + np.exp(-0.5)), rel=1e-6)


def test_regression_keeps_its_value_and_has_no_confidence() -> None:
    scores = calibrated_scores(_row(3.7), 5.0, "regression")

    np.testing.assert_array_equal(scores, _row(3.7))
    assert confidence(scores, "regression") == 0.0


def test_an_embedding_keeps_its_vector_and_is_never_doubted() -> None:
    scores = calibrated_scores(_row(3.7, -9.0), 5.0, "embedding")

    np.testing.assert_array_equal(scores, _row(3.7, -9.0))
    assert confidence(scores, "embedding") == 1.0


def test_ensemble_weighs_the_levels() -> None:
    mixed = ensemble([_row(1.0, 0.0), _row(0.0, 1.0)], [1.0, 3.0])

    np.testing.assert_allclose(mixed, [0.25, 0.75])


def test_a_pair_of_levels_without_weight_is_answered_by_the_later_one() -> None:
    before, now = _row(1.0, 0.0), _row(0.0, 1.0)

    np.testing.assert_array_equal(join_levels(before, now, (0.0, 0.0)), now)
    np.testing.assert_allclose(join_levels(before, now, (0.5, 0.25)), [2 / 3, 1 / 3], rtol=1e-6)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_bad_temperature_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="positive temperature"):
        calibrated_scores(_row(1.0), temperature, "single_label")


@pytest.mark.parametrize("weights", [[1.0], [0.0, 0.0], [-1.0, 2.0], [float("nan"), 1.0]])
def test_bad_weights_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        ensemble([_row(1.0, 0.0), _row(0.0, 1.0)], weights)


def test_the_run_time_part_imports_no_heavy_library() -> None:
    code = (
        "import sys, tasks.calibration;"
        "print([m for m in ('torch', 'scipy', 'sklearn') if m in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
