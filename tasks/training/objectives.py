"""Loss and figures of merit per kind of task."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from messages.task_event import TaskKind
from tasks.training.batches import IGNORED

PRIMARY: Mapping[TaskKind, str] = {
    "single_label": "accuracy",
    "multi_label": "exact_match",
    "regression": "pearson",
    "tagging": "word_accuracy",
}
"""The figure that a kind is judged by; larger is better."""


def loss(logits: Tensor, targets: Tensor, kind: TaskKind) -> Tensor:
    """Return the mean loss of a batch; shapes as in `batches.Batch`."""
    if kind == "single_label":
        return functional.cross_entropy(logits, targets)
    if kind == "tagging":
        return functional.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED
        )
    if kind == "multi_label":
        return functional.binary_cross_entropy_with_logits(logits, targets)
    return functional.mse_loss(logits, targets)


def figures(
    logits: NDArray[np.float32],
    targets: NDArray[np.float64],
    kind: TaskKind,
    decision_threshold: float = 0.5,
) -> dict[str, float]:
    """Return the figures of merit of a kind.

    Args:
        logits: Shape (num_rows, num_labels); tagging: (num_words, num_labels).
        targets: Indices, shape (num_rows,) or (num_words,); multi-label 0 or 1, as the logits;
            regression (num_rows, 1).
        kind: Of the task.
        decision_threshold: Multi-label: probability from which a label is given.
    """
    if kind == "regression":
        errors = logits[:, 0] - targets[:, 0]
        spread = logits[:, 0].std() > 0 and targets[:, 0].std() > 0
        pearson = np.corrcoef(logits[:, 0], targets[:, 0])[0, 1] if spread else 0.0
        return {"pearson": float(pearson), "rmse": float(np.sqrt(np.mean(errors**2)))}
    if kind == "multi_label":
        cut = np.log(decision_threshold / (1 - decision_threshold))
        return multi_label_figures(logits >= cut, targets > 0.5)
    hits = float(np.mean(logits.argmax(-1) == targets))
    return {PRIMARY[kind]: hits}


def multi_label_figures(given: NDArray[np.bool_], wanted: NDArray[np.bool_]) -> dict[str, float]:
    """Return exact match and micro-F1 of label sets, both shape (num_rows, num_labels)."""
    true_positives = float((given & wanted).sum())
    total = float(given.sum() + wanted.sum())
    return {
        "exact_match": float((given == wanted).all(axis=1).mean()),
        "micro_f1": 2 * true_positives / total if total else 1.0,
    }


def labelled(
    output: Tensor, target: Tensor, kind: TaskKind
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return one row's output and target as arrays; tagging: only tokens that stand for words."""
    if kind == "tagging":
        chosen = target != IGNORED
        output, target = output[chosen], target[chosen]
    return output.numpy(), target.numpy().astype(np.float64)


def array_loss(logits: NDArray[np.float32], targets: NDArray[np.float64], kind: TaskKind) -> float:
    """Return `loss` of arrays as `figures` takes them."""
    classes = kind in ("single_label", "tagging")
    wanted = torch.from_numpy(targets.astype(np.int64 if classes else np.float32))
    return float(loss(torch.from_numpy(logits), wanted, "single_label" if classes else kind))
