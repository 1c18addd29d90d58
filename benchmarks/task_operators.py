"""The operators of the tasks of a batch, each with its work and its pools, at every place.

Together, as grouped operators, or those of one task alone; `grouped_encoder.py` runs them.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch

from benchmarks.gpu_encoder import BOTTLENECK, EPS, NORMED, RANK, Layer, Product, Task, TaskLayer
from gpu_ops.bottleneck import BottleneckWeights
from gpu_ops.grouped.bias_gelu import RowVectors, bias_gelu_, bias_gelu_work
from gpu_ops.grouped.bottleneck import BottleneckPool, add_bottleneck_, bottleneck_work
from gpu_ops.grouped.layer_norm import NormPool, add_layer_norm, layer_norm_work
from gpu_ops.grouped.low_rank import (
    LARGE_TILE_BLOCKS,
    LowRankPool,
    add_low_rank_,
    low_rank_work,
)
from gpu_ops.grouped.masked_product import masked_product_, masked_product_work, pack_mask
from gpu_ops.grouped.operator_schedule import Work
from gpu_ops.grouped.segments import Segment, TileTable, row_slots, tile_entries
from gpu_ops.grouped.sparse_delta import (
    DELTA_ROWS,
    add_sparse_delta_,
    sparse_delta_work,
    sparse_pool,
)
from gpu_ops.grouped.tiles import BUSY_BLOCKS, tile_rows_for
from gpu_ops.low_rank import LowRankFactors
from gpu_ops.spans import Span
from gpu_ops.sparse_delta import SparseWeights, patch_weight

FEW_ROWS = 4
"""Tokens of a task up to which low-rank products go by rows."""
MaskForm = Literal["bits", "sparse"]


class Operator(NamedTuple):
    """One operator at one place."""

    rows: Span
    """Of its tasks."""
    work: Work
    run: Callable[[torch.Tensor, torch.Tensor], None]
    """Given those rows of what it changes and of what it reads besides."""


class Part:
    """Tasks whose operators are launched together, and their rows: a whole batch, or one task."""

    def __init__(
        self, backbone: Sequence[Layer], tasks: Sequence[Task], rows: Span, mask_as: MaskForm
    ) -> None:
        """Build what says which rows are whose.

        Args:
            backbone: Shared.
            tasks: With rows among `rows`.
            rows: Of the batch.
            mask_as: Whether masks replace the shared product, or are added to it.
        """
        self._backbone = backbone
        self._rows = rows
        self._device = backbone[0].weights["qkv"].device
        self._element_bytes = backbone[0].weights["qkv"].element_size()
        self._tasks = tasks
        is_sparse = {"diff", "mask"} if mask_as == "sparse" else {"diff"}
        self._own: dict[str, list[Task]] = {
            "bias": [task for task in tasks if task.kind in ("bitfit", "diff")],
            "low_rank": [task for task in tasks if task.kind == "lora"],
            "adapter": [task for task in tasks if task.kind == "adapter"],
            "mask": [task for task in tasks if task.kind == "mask" and mask_as == "bits"],
            "sparse": [task for task in tasks if task.kind in is_sparse],
        }
        longest = max((task.tokens.num_rows for task in tasks), default=1)
        self._slots = self._slots_of("bias")
        self._low_rank_groups = (
            self._slots_of("low_rank")
            if longest <= FEW_ROWS
            else self._product_tiles("low_rank", 3 * RANK, LARGE_TILE_BLOCKS)
        )
        self._adapter_tiles = self._product_tiles("adapter", BOTTLENECK, BUSY_BLOCKS)
        fewest_outputs = min(map(len, backbone[0].biases.values()))
        self._mask_tiles = self._product_tiles("mask", fewest_outputs, BUSY_BLOCKS)
        self._sparse_tiles = self._tiles_of("sparse", DELTA_ROWS)

    def changes(self, layer: int, product: Product) -> list[Operator]:
        """Return what changes the shared product: kinds differ in their rows and do not meet."""
        found = []
        if self._own["mask"]:
            found.append(self._masked_product(layer, product))
        if self._own["sparse"]:
            found.append(self._sparse_delta(layer, product))
        if self._own["low_rank"] and product == "qkv":
            found.append(self._low_rank(layer, product))
        if self._own["adapter"] and product in NORMED:
            found.append(self._bottleneck(layer, product))
        return found

    def epilogue(self, layer: int, product: Product) -> Operator:
        """Return a product's bias, and GELU behind `ffn_input`."""
        shared = self._backbone[layer].biases[product]
        own = self._layers("bias", layer)
        biases = torch.stack([shared, *(shared + of.biases[product] for of in own)])[1:]
        table, gelu = RowVectors(biases.contiguous(), self._slots), product == "ffn_input"
        work = bias_gelu_work(
            self._task_rows(), len(shared), self._element_bytes, gelu=gelu, is_scaled=False
        )
        return self._operator(work, lambda y, _: bias_gelu_(y, shared, table, gelu=gelu))

    def norm(self, layer: int, product: Product) -> Operator:
        """Return bias, residual and LayerNorm behind a product."""
        bias, norm = self._backbone[layer].biases[product], self._backbone[layer].norms[product]
        shared = torch.stack([bias, *norm])
        params = [
            torch.stack([bias + of.biases[product], *of.norms[product]])
            for of in self._layers("bias", layer)
        ]
        pool = NormPool(shared, torch.stack([shared, *params])[1:].contiguous(), self._slots)
        work = layer_norm_work(self._task_rows(), len(bias), self._element_bytes)

        def run(y: torch.Tensor, residual: torch.Tensor) -> None:
            add_layer_norm(y, residual, pool, EPS, out=y)

        return self._operator(work, run)

    def _masked_product(self, layer: int, product: Product) -> Operator:
        weight = self._backbone[layer].weights[product]
        kept = _kept([of.sparse[product] for of in self._layers("mask", layer)], weight)
        num_out, num_in = weight.shape
        work = masked_product_work(self._task_rows("mask"), num_in, num_out, self._element_bytes)
        return self._operator(
            work, lambda y, x: masked_product_(y, x, weight, kept, self._mask_tiles)
        )

    def _sparse_delta(self, layer: int, product: Product) -> Operator:
        weight = self._backbone[layer].weights[product]
        deltas = [of.sparse[product] for of in self._layers("sparse", layer)]
        pool = sparse_pool(deltas, weight.dtype)
        num_out, num_in = weight.shape
        work = sparse_delta_work(
            self._task_rows("sparse"),
            [delta.num_changed for delta in deltas],
            num_in,
            num_out,
            self._element_bytes,
        )
        return self._operator(
            work, lambda y, x: add_sparse_delta_(y, x, weight, pool, self._sparse_tiles)
        )

    def _low_rank(self, layer: int, product: Product) -> Operator:
        factors = [of.low_rank for of in self._layers("low_rank", layer)]
        pool = low_rank_pool([one for one in factors if one is not None])
        num_out, num_in = self._backbone[layer].weights[product].shape
        work = low_rank_work(
            self._task_rows("low_rank"),
            num_in,
            num_out,
            pool.up.shape[2],
            pool.blocks,
            self._element_bytes,
        )
        return self._operator(work, lambda y, x: add_low_rank_(y, x, pool, self._low_rank_groups))

    def _bottleneck(self, layer: int, product: Product) -> Operator:
        pool = adapter_pool(
            [of.adapters[product] for of in self._layers("adapter", layer)],
            self._backbone[layer].biases[product],
        )
        _, bottleneck, hidden = pool.down_weight.shape
        work = bottleneck_work(self._task_rows("adapter"), hidden, bottleneck, self._element_bytes)
        return self._operator(work, lambda y, _: add_bottleneck_(y, pool, self._adapter_tiles))

    def _operator(self, work: Work, run: Callable[[torch.Tensor, torch.Tensor], None]) -> Operator:
        return Operator(self._rows, work, run)

    def _layers(self, use: str, layer: int) -> list[TaskLayer]:
        return [task.layers[layer] for task in self._own[use]]

    def _task_rows(self, use: str | None = None) -> list[int]:
        """Return the rows of each task that has this operator; of all rows, where all have it."""
        if use is None:
            return [task.tokens.num_rows for task in self._tasks] or [self._rows.num_rows]
        return [task.tokens.num_rows for task in self._own[use]]

    def _segments_of(self, use: str) -> list[Segment]:
        first = self._rows.start
        return [
            Segment(Span(task.tokens.start - first, task.tokens.end - first), slot)
            for slot, task in enumerate(self._own[use])
        ]

    def _slots_of(self, use: str) -> torch.Tensor:
        return row_slots(self._segments_of(use), self._rows.num_rows).to(self._device)

    def _product_tiles(self, use: str, columns: int, busy_blocks: int) -> TileTable:
        task_rows = self._task_rows(use) or [0]
        return self._tiles_of(use, tile_rows_for(task_rows, columns, busy_blocks))

    def _tiles_of(self, use: str, tile_rows: int) -> TileTable:
        segments = self._segments_of(use)
        capacity = sum(-(-segment.span.num_rows // tile_rows) for segment in segments)
        return TileTable(tile_entries(segments, tile_rows, capacity).to(self._device), tile_rows)


def low_rank_pool(factors: Sequence[LowRankFactors]) -> LowRankPool:
    """Put tasks' updates into a pool, the first in slot 0."""
    ups = [torch.cat([up.weight for up in one.ups]) for one in factors]
    return LowRankPool(torch.stack([one.down for one in factors]), torch.stack(ups))


def _kept(drops: Sequence[SparseWeights], weight: torch.Tensor) -> torch.Tensor:
    ones = torch.ones_like(weight)
    packed = [pack_mask(patch_weight(ones, drop, torch.empty_like(ones)).bool()) for drop in drops]
    return torch.stack(packed)


def adapter_pool(
    adapters: Sequence[BottleneckWeights], shared_bias: torch.Tensor
) -> BottleneckPool:
    """Build a pool for rows that lack the shared bias, which the LayerNorm adds: down knows it."""
    return BottleneckPool(
        torch.stack([a.down_weight for a in adapters]),
        torch.stack([a.down_bias + a.down_weight @ shared_bias for a in adapters]),
        torch.stack([a.up_weight for a in adapters]),
        torch.stack([a.up_bias for a in adapters]),
        torch.zeros(len(adapters), dtype=torch.int32, device=shared_bias.device),
    )
