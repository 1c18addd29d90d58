"""The accuracy benchmark judges PET and probe by the same rules."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.bench_task_accuracy import changed_share, decided_figures
from petstream.settings import load_settings
from tasks.artifact import open_artifact
from tasks.description import Cascade
from tasks.training.evaluation import PerRow
from workers.backbone_store import find

EXAMPLES = Path(__file__).parents[2] / "examples" / "tasks"


def _cascade(decision_threshold: float) -> Cascade:
    return Cascade(
        temperatures=(1.0, 2.0),
        threshold=0.5,
        ensemble_weights=(0.5, 0.5),
        accuracies=(0.5, 0.5),
        decision_threshold=decision_threshold,
        fitted_on_rows=1,
        target=0.5,
    )


def test_a_label_is_given_from_the_fitted_probability() -> None:
    """Of the calibrated scores, as in a worker: a logit of 1 is .73, at temperature 2 .62."""
    found = PerRow([np.array([1.0, -5.0], np.float32)], [np.array([1.0, 0.0])], "multi_label")

    def exact_match(cascade: Cascade | None, place: int) -> float:
        return decided_figures(found, ("first", "second"), cascade, place)["exact_match"]

    assert exact_match(_cascade(0.7), 0) == 1.0
    assert exact_match(_cascade(0.7), 1) == 0.0
    assert exact_match(_cascade(0.6), 1) == 1.0
    assert exact_match(None, 0) == 1.0


@pytest.mark.parametrize(("name", "least", "most"), [("snips", 0.01, 0.5), ("hwu64", 0.004, 0.005)])
def test_the_share_of_weights_that_a_pet_changes(name: str, least: float, most: float) -> None:
    """Of all matrices of all layers: what a mask drops, and the half per cent of a diff."""
    artifact = open_artifact(EXAMPLES / name)

    share = changed_share(artifact, 0, find("minilm-l3", load_settings().models_dir))

    assert share is not None
    assert least < share <= most


def test_a_pet_that_changes_no_single_weights_has_no_share() -> None:
    """BitFit moves biases only."""
    backbone = find("minilm-l3", load_settings().models_dir)

    assert changed_share(open_artifact(EXAMPLES / "sms_spam"), 0, backbone) is None
