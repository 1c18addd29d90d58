"""The linear probe: logistic regression on a frozen backbone's pooled features.

It is the bar that a PET has to clear, and where its training starts: the head is initialised with
the probe's weights, so that the backbone's features are not distorted by the large gradients of a
random head (LP-FT, Kumar et al., ICLR 2022).
"""

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge

from messages.task_event import TaskKind

PROBE_C = 30.0
"""Inverse regularisation of the bar: little, so that the probe is as accurate as it can be."""
_MAX_ITERATIONS = 1000
_MAX_ITEMS = 40_000
"""Words of a tagging task: ten times as many as rows, and each is multiplied with every tag."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A linear map of features over their length; `mean_norm` makes it one of the features."""

    weight: NDArray[np.float32]
    """Shape (num_labels, hidden)."""
    bias: NDArray[np.float32]
    """Shape (num_labels,)."""
    mean_norm: float

    def logits(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the probe's own logits for `features`, shape (num_rows, hidden)."""
        return (_normalised(features) @ self.weight.T + self.bias).astype(np.float32)

    def head(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return weight and bias of a head on features that are not normalised.

        Exact where a row's norm is the mean norm; norms vary by a few per cent.
        """
        return self.weight / np.float32(self.mean_norm), self.bias


def fit_probe(
    features: NDArray[np.float32],
    targets: NDArray[np.float64],
    kind: TaskKind,
    num_labels: int,
    seed: int,
    inverse_regularisation: float = PROBE_C,
) -> Probe:
    """Fit scikit-learn's logistic regression (regression: ridge) to normalised features.

    Args:
        features: Shape (num_rows, hidden); tagging: (num_words, hidden).
        targets: As `evaluation.PerRow.stacked` gives them.
        kind: Of the task.
        num_labels: Rows of the head; labels without a training row never win.
        seed: Of the solver.
        inverse_regularisation: scikit-learn's C.

    Of more than 40,000 words so many are drawn by the seed, and one of each tag.
    """
    if kind == "tagging":
        drawn = _draw(targets, seed)
        features, targets = features[drawn], targets[drawn]
    inputs = _normalised(features)
    mean_norm = float(np.linalg.norm(features, axis=1).mean())
    if kind == "regression":
        ridge = Ridge(alpha=1.0).fit(inputs, targets[:, 0])
        weight = ridge.coef_[None].astype(np.float32)
        return Probe(weight, np.array([ridge.intercept_], np.float32), mean_norm)
    solver = LogisticRegression(
        C=inverse_regularisation, max_iter=_MAX_ITERATIONS, random_state=seed
    )
    if kind == "multi_label":
        rows = [_fit_binary(inputs, targets[:, label], solver) for label in range(num_labels)]
        weight = np.stack([weight for weight, _ in rows]).astype(np.float32)
        return Probe(weight, np.array([bias for _, bias in rows], np.float32), mean_norm)
    weight, bias = _fit_classes(inputs, targets, num_labels, solver)
    return Probe(weight, bias, mean_norm)


def _draw(targets: NDArray[np.float64], seed: int) -> NDArray[np.int64]:
    """Return the words to fit to: all, or many drawn ones and one of each tag at least."""
    order = np.random.default_rng(seed).permutation(len(targets))
    _, firsts = np.unique(targets[order], return_index=True)
    drawn: NDArray[np.int64] = np.union1d(order[:_MAX_ITEMS], order[firsts])
    return drawn


def _fit_classes(
    inputs: NDArray[np.float32],
    targets: NDArray[np.float64],
    num_labels: int,
    solver: LogisticRegression,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    fitted = _fitted(solver, inputs, targets)
    weight = np.zeros((num_labels, inputs.shape[1]), np.float32)
    bias = np.full(num_labels, -20.0, np.float32)
    if len(fitted.classes_) == 2:  # one column that tells the second class from the first
        second = int(fitted.classes_[1])
        bias[int(fitted.classes_[0])] = -fitted.intercept_[0] / 2
        weight[int(fitted.classes_[0])] = -fitted.coef_[0] / 2
        weight[second], bias[second] = fitted.coef_[0] / 2, fitted.intercept_[0] / 2
    else:
        weight[fitted.classes_.astype(int)] = fitted.coef_
        bias[fitted.classes_.astype(int)] = fitted.intercept_
    return weight, bias


def _fit_binary(
    inputs: NDArray[np.float32], targets: NDArray[np.float64], solver: LogisticRegression
) -> tuple[NDArray[np.float32], float]:
    if targets.min() == targets.max():
        return np.zeros(inputs.shape[1], np.float32), 8.0 if targets[0] else -8.0
    fitted = _fitted(solver, inputs, targets)
    return fitted.coef_[0], float(fitted.intercept_[0])


def _fitted(
    solver: LogisticRegression, inputs: NDArray[np.float32], targets: NDArray[np.float64]
) -> LogisticRegression:
    with warnings.catch_warnings():
        # The bound on iterations is one more regulariser here, not a failure.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return clone(solver).fit(inputs, targets)


def _normalised(features: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    normalised: NDArray[np.float32] = (features / np.maximum(norms, 1e-12)).astype(np.float32)
    return normalised
