"""The encoder of `gpu_encoder.py` by grouped operators, on one stream or several.

Operators of a place are dealt to streams by PetS's rule (`gpu_ops.grouped.operator_schedule`):
ours, each for all tasks of a batch, or PetS's, each for one task, with its bias, GELU and
LayerNorm.
"""

from collections.abc import Sequence
from functools import partial, reduce
from operator import add
from typing import Literal, NamedTuple

import torch
from torch.nn import functional as F

from benchmarks.gpu_encoder import NORMED, PRODUCTS, Layer, Product, Task
from benchmarks.task_operators import MaskForm, Operator, Part
from gpu_ops.grouped.operator_schedule import deal, intensity
from gpu_ops.grouped.streams import OperatorStreams
from gpu_ops.spans import Span


class Schedule(NamedTuple):
    """What is launched as one operator, and on how many streams."""

    unit: Literal["grouped", "per task"]
    num_streams: int


ONE_STREAM = Schedule("grouped", 1)

Stage = list[list[Operator]]
"""The operators of each stream; the next stage waits for them."""


class GroupedOps:
    """The shared product for all rows, then the tasks' operators as a schedule has them."""

    def __init__(
        self,
        backbone: Sequence[Layer],
        tasks: Sequence[Task],
        num_tokens: int,
        mask_as: MaskForm = "sparse",
        schedule: Schedule = ONE_STREAM,
    ) -> None:
        """Build the pools.

        Args:
            backbone: Shared.
            tasks: Of the batch.
            num_tokens: Of the batch. Per task, each must be a task's, which adds the shared bias.
            mask_as: Whether masks replace the shared product, or are added to it.
            schedule: How to launch.
        """
        self._backbone = backbone
        self._streams = OperatorStreams(schedule.num_streams, backbone[0].weights["qkv"].device)
        kinds = [task.kind for task in tasks]
        self._needs_product = mask_as == "sparse" or set(kinds) != {"mask"}
        if schedule.unit == "grouped":
            parts = [Part(backbone, tasks, Span(0, num_tokens), mask_as)]
        else:
            parts = [Part(backbone, [task], task.tokens, mask_as) for task in tasks]
        self._stages = [
            {product: self._stages_at(layer, product, parts, schedule) for product in PRODUCTS}
            for layer in range(len(backbone))
        ]
        self._norms = [
            {
                product: self._dealt([part.norm(layer, product) for part in parts])
                for product in NORMED
            }
            for layer in range(len(backbone))
        ]

    def product(self, layer: int, product: Product, x: torch.Tensor) -> torch.Tensor:
        """Run the shared product and the operators; a normed product's bias comes later."""
        weight = self._backbone[layer].weights[product]
        y = F.linear(x, weight) if self._needs_product else x.new_empty(len(x), len(weight))
        for stage in self._stages[layer][product]:
            self._run(stage, y, x)
        return y

    def norm(
        self, layer: int, product: Product, x: torch.Tensor, residual: torch.Tensor
    ) -> torch.Tensor:
        """Run bias, residual and LayerNorm at once, in the place of `x`."""
        self._run(self._norms[layer][product], x, residual)
        return x

    def _stages_at(
        self, layer: int, product: Product, parts: Sequence[Part], schedule: Schedule
    ) -> list[Stage]:
        """Grouped, what follows a product for all rows waits for all; a task's for its own."""
        changes = [part.changes(layer, product) for part in parts]
        ends = [[part.epilogue(layer, product)] if product not in NORMED else [] for part in parts]
        if schedule.unit == "grouped":
            (own_changes,), (own_ends,) = changes, ends
            return [self._dealt(stage) for stage in (own_changes, own_ends) if stage]
        chains = [[*own, *end] for own, end in zip(changes, ends, strict=True)]
        return [self._dealt([_in_turn(chain) for chain in chains if chain])]

    def _dealt(self, operators: Sequence[Operator]) -> Stage:
        intensities = [intensity(one.work) for one in operators]
        return deal(operators, intensities, self._streams.num_streams)

    def _run(self, stage: Stage, changed: torch.Tensor, read: torch.Tensor) -> None:
        self._streams.run(
            [
                [
                    partial(one.run, changed[slice(*one.rows)], read[slice(*one.rows)])
                    for one in operators
                ]
                for operators in stage
            ]
        )


def _in_turn(operators: Sequence[Operator]) -> Operator:
    """Return one operator that runs several on the same rows."""

    def run(changed: torch.Tensor, read: torch.Tensor) -> None:
        for one in operators:
            one.run(changed, read)

    return Operator(operators[0].rows, reduce(add, [one.work for one in operators]), run)


def bare_ops(backbone: Sequence[Layer], num_tokens: int) -> GroupedOps:
    """Return the same without any task's operators: what sharing a backbone costs at least."""
    return GroupedOps(backbone, [], num_tokens)
