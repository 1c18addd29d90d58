"""The linear probe that a head starts at."""

import numpy as np

from tasks.training.probe import fit_probe


def test_a_rare_tag_of_many_words_is_among_those_fitted_to() -> None:
    """Words are drawn where there are many; a tag that is drawn nowhere could never be learned."""
    targets = np.arange(120_000, dtype=np.float64) % 2
    targets[[5, 50_005, 100_005]] = 2.0, 3.0, 4.0
    features = np.eye(5, dtype=np.float32)[targets.astype(int)]

    probe = fit_probe(features, targets, "tagging", 5, seed=0, inverse_regularisation=0.01)

    assert probe.bias.min() > -20.0  # of a label that was not seen


def test_a_label_without_a_row_never_wins() -> None:
    targets = np.array([0.0, 2.0] * 50)
    features = np.eye(3, dtype=np.float32)[targets.astype(int)]

    probe = fit_probe(features, targets, "single_label", 3, seed=0)

    assert (probe.logits(np.eye(3, dtype=np.float32)).argmax(axis=1) != 1).all()
