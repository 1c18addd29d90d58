"""Loss per kind of task, and which outputs it is of."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from messages.task_event import TaskKind
from tasks.training.batches import IGNORED


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


def labelled(
    output: Tensor, target: Tensor, kind: TaskKind
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return one row's output and target as arrays; tagging: only tokens that stand for words."""
    if kind == "tagging":
        chosen = target != IGNORED
        output, target = output[chosen], target[chosen]
    return output.numpy(), target.numpy().astype(np.float64)


def array_loss(logits: NDArray[np.float32], targets: NDArray[np.float64], kind: TaskKind) -> float:
    """Return `loss` of arrays as `evaluation.PerRow.stacked` gives them."""
    classes = kind in ("single_label", "tagging")
    wanted = torch.from_numpy(targets.astype(np.int64 if classes else np.float32))
    return float(loss(torch.from_numpy(logits), wanted, "single_label" if classes else kind))
