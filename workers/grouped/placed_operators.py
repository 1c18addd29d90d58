"""Operators behind a product, for rows of some tasks: one launch, with its work and its tables."""

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import torch

from gpu_ops.grouped.bottleneck import BottleneckPool, add_bottleneck_, bottleneck_work
from gpu_ops.grouped.launch import div_ceil
from gpu_ops.grouped.low_rank import LowRankPool, add_low_rank_, low_rank_work
from gpu_ops.grouped.masked_product import masked_product_, masked_product_work
from gpu_ops.grouped.operator_schedule import Work
from gpu_ops.grouped.segments import Segment, TileTable, row_slots, tile_entries
from gpu_ops.grouped.sparse_delta import (
    DELTA_ROWS,
    SparsePool,
    add_sparse_delta_,
    sparse_delta_work,
)
from gpu_ops.grouped.tiles import tile_rows_for
from workers.backbone import SITES_OF, Product
from workers.grouped.batch_tables import BatchTables
from workers.grouped.device_backbone import DeviceBackbone
from workers.grouped.on_device import OnDevice
from workers.grouped.pass_sizes import PassSizes
from workers.grouped.task_pools import TaskPools
from workers.power_of_two import power_of_two

FEW_ROWS = 4
"""Tokens of a task up to which low-rank products go by rows: about where the operators' times cross
on an H100 (docs/gpu.md)."""
FEWEST_TILES = 32
"""Of a table in a pass that is captured."""


class PlacedOperator(NamedTuple):
    """One launch, or several in turn, behind one product."""

    launches: Hashable
    """What is launched, on which weights; equal for the same with other tables."""
    work: Callable[[], Work]
    """Returns that of one layer, by which operators are dealt over several streams."""
    run: Callable[[int, torch.Tensor, torch.Tensor], None]
    """Given the layer, what it changes and what it reads."""


class _Tiles(NamedTuple):
    """A table of tiles that is not on the device yet."""

    number: int
    """Among the batch's tables."""
    tile_rows: int


class PlacedOperators:
    """Makes the operators of one batch. Pools must have slots for its tasks already."""

    def __init__(
        self,
        num_tokens: int,
        pools: TaskPools,
        shared: DeviceBackbone,
        how: OnDevice,
        tables: BatchTables,
        sizes: PassSizes | None,
    ) -> None:
        self._num_tokens = num_tokens
        self._tables = tables
        self._sizes = sizes
        self._pools = pools
        self._shared = shared
        self._kernels = how.kernels

    def masked_product(self, product: Product, groups: Sequence[Segment]) -> PlacedOperator:
        """Return the product by masked weights, which replaces the shared one."""
        num_out, num_in = self._weight(0, product).shape
        pool, tiles = self._pools.masks(product), self._product_tiles(groups, num_out)

        def run(layer: int, y: torch.Tensor, x: torch.Tensor) -> None:
            kept = pool.at(layer, "kept")
            weight = self._weight(layer, product)
            masked_product_(y, x, weight, kept, self._on_device(tiles), self._kernels)

        def work() -> Work:
            return masked_product_work(_rows(groups), num_in, num_out, self._element_bytes)

        launches = ("masked_product", product, tiles.tile_rows, pool.generation)
        return PlacedOperator(launches, work, run)

    def sparse_delta(
        self, product: Product, num_changes: int, groups: Sequence[Segment]
    ) -> PlacedOperator:
        """Return the sparse product of changes beside the shared one."""
        pool, tiles = self._pools.sparse(product, num_changes), self._tiles(groups, DELTA_ROWS)
        num_out, num_in = self._weight(0, product).shape
        firsts = torch.arange(pool.num_slots, device=self._shared.device) * num_changes

        def run(layer: int, y: torch.Tensor, x: torch.Tensor) -> None:
            columns, values = (pool.at(layer, name).view(-1) for name in ("columns", "values"))
            changes = SparsePool(columns, values, pool.at(layer, "row_offsets"), firsts, firsts)
            weight = self._weight(layer, product)
            add_sparse_delta_(y, x, weight, changes, self._on_device(tiles), self._kernels)

        def work() -> Work:
            changes_of, element_bytes = [num_changes] * len(groups), self._element_bytes
            return sparse_delta_work(_rows(groups), changes_of, num_in, num_out, element_bytes)

        launches = ("sparse_delta", product, num_changes, pool.generation)
        return PlacedOperator(launches, work, run)

    def low_rank(self, product: Product, rank: int, groups: Sequence[Segment]) -> PlacedOperator:
        """Return low-rank updates of one rank."""
        pool, blocks = self._pools.low_rank(product, rank), len(SITES_OF[product])
        num_out, num_in = self._weight(0, product).shape
        if max(_rows(groups)) <= FEW_ROWS:
            table, tile_rows = self._tables.add(row_slots(groups, self._num_tokens)), None
        else:
            table, tile_rows = self._product_tiles(groups, blocks * rank)

        def run(layer: int, y: torch.Tensor, x: torch.Tensor) -> None:
            factors = LowRankPool(pool.at(layer, "down"), pool.at(layer, "up"))
            slots = self._tables[table]
            grouped = slots if tile_rows is None else TileTable(slots, tile_rows)
            add_low_rank_(y, x, factors, grouped, self._kernels)

        def work() -> Work:
            rows, element_bytes = _rows(groups), self._element_bytes
            return low_rank_work(rows, num_in, num_out, rank, blocks, element_bytes)

        launches = ("low_rank", product, rank, tile_rows, pool.generation)
        return PlacedOperator(launches, work, run)

    def bottleneck(
        self, product: Product, bottleneck: int, groups: Sequence[Segment]
    ) -> PlacedOperator:
        """Return adapters of one width."""
        pool = self._pools.adapters(product, bottleneck)
        tiles = self._product_tiles(groups, bottleneck)
        hidden = len(self._weight(0, product))

        def run(layer: int, y: torch.Tensor, x: torch.Tensor) -> None:
            adapters = BottleneckPool(*(pool.at(layer, name) for name in BottleneckPool._fields))
            add_bottleneck_(y, adapters, self._on_device(tiles), self._kernels)

        def work() -> Work:
            return bottleneck_work(_rows(groups), hidden, bottleneck, self._element_bytes)

        launches = ("bottleneck", product, bottleneck, tiles.tile_rows, pool.generation)
        return PlacedOperator(launches, work, run)

    def _product_tiles(self, groups: Sequence[Segment], columns: int) -> "_Tiles":
        return self._tiles(groups, tile_rows_for(_rows(groups), columns))

    def _tiles(self, groups: Sequence[Segment], tile_rows: int) -> "_Tiles":
        capacity = sum(div_ceil(num_rows, tile_rows) for num_rows in _rows(groups))
        if self._sizes is not None:
            # For other batches too; a block without a tile costs little, but not nothing.
            capacity = power_of_two(capacity, FEWEST_TILES)
        entries = tile_entries(groups, tile_rows, capacity)
        return _Tiles(self._tables.add(entries), tile_rows)

    def _on_device(self, tiles: "_Tiles") -> TileTable:
        return TileTable(self._tables[tiles.number], tiles.tile_rows)

    def _weight(self, layer: int, product: Product) -> torch.Tensor:
        return self._shared.products[layer, product].weight

    @property
    def _element_bytes(self) -> int:
        return self._shared.dtype.itemsize


def _rows(groups: Sequence[Segment]) -> list[int]:
    return [group.span.num_rows for group in groups]
