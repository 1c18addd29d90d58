"""Runs a model over rows without gradients, longest batches last."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from messages.task_event import TaskKind
from tasks.training.batches import Batch, EncodedRow, plain_batches
from tasks.training.model import DenseModel
from tasks.training.objectives import labelled

_ROWS_PER_BATCH = 128


@dataclass(frozen=True, slots=True)
class PerRow:
    """Outputs of a model beside the targets, row by row."""

    outputs: list[NDArray[np.float32]]
    """(width,); tagging (num_words, width)."""
    targets: list[NDArray[np.float64]]
    """() index; (num_labels,) of 0 and 1; (1,) value; tagging (num_words,) indices."""
    kind: TaskKind

    def stacked(self) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Return (num_items, width) and the targets; the items of tagging are words."""
        if self.kind == "tagging":
            return np.concatenate(self.outputs), np.concatenate(self.targets)
        return np.stack(self.outputs), np.stack(self.targets)

    def with_outputs(self, stacked: NDArray[np.float32]) -> "PerRow":
        """Return other outputs for the same targets.

        Args:
            stacked: One for each item, as `stacked` gives them; of any width.
        """
        if self.kind != "tagging":
            return PerRow(list(stacked), self.targets, self.kind)
        ends = np.cumsum([len(target) for target in self.targets])
        return PerRow(np.split(stacked, ends[:-1]), self.targets, self.kind)


def predict(
    model: DenseModel, rows: Sequence[EncodedRow], kind: TaskKind, *, use_bf16: bool = False
) -> PerRow:
    """Return logits and targets of the rows, in their order."""
    return _collect(model, rows, kind, use_bf16)


def extract_features(
    model: DenseModel, rows: Sequence[EncodedRow], kind: TaskKind, *, use_bf16: bool = False
) -> PerRow:
    """Return the head's inputs and the targets of the rows, in their order."""
    return _collect(model.features, rows, kind, use_bf16)


def _collect(
    function: Callable[[Batch], Tensor],
    rows: Sequence[EncodedRow],
    kind: TaskKind,
    use_bf16: bool,
) -> PerRow:
    order = sorted(range(len(rows)), key=lambda index: len(rows[index].token_ids))
    outputs: dict[int, NDArray[np.float32]] = {}
    targets: dict[int, NDArray[np.float64]] = {}
    indices = iter(order)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=use_bf16):
        for batch in plain_batches([rows[index] for index in order], kind, _ROWS_PER_BATCH):
            for found, target in zip(function(batch).float(), batch.targets, strict=True):
                index = next(indices)
                outputs[index], targets[index] = labelled(found, target, kind)
    return PerRow(
        [outputs[index] for index in range(len(rows))],
        [targets[index] for index in range(len(rows))],
        kind,
    )
