"""Operators behind a product, for rows of some tasks: one launch, with its work and its tables."""

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import torch

from gpu_ops.grouped.bottleneck import BottleneckPool, add_bottleneck_, bottleneck_work
from gpu_ops.grouped.low_rank import (
    LARGE_TILE_BLOCKS,
    LowRankPool,
    add_low_rank_,
    low_rank_shared_bytes,
    low_rank_work,
)
from gpu_ops.grouped.masked_product import masked_product_, masked_product_work
from gpu_ops.grouped.operator_schedule import Work
from gpu_ops.grouped.segments import TILE_ROWS, TileTable
from gpu_ops.grouped.sparse_delta import (
    DELTA_ROWS,
    SparsePool,
    add_sparse_delta_,
    sparse_delta_work,
)
from gpu_ops.grouped.tiles import BUSY_BLOCKS
from workers.backbone import SITES_OF, Product
from workers.grouped.batch_tables import BatchTables
from workers.grouped.device_backbone import DeviceBackbone
from workers.grouped.on_device import OnDevice
from workers.grouped.segment_group import SegmentGroup
from workers.grouped.task_pools import TaskPools

FEW_ROWS = 4
"""Tokens of a task up to which low-rank products go by rows: about where the operators' times cross
on an H100 (docs/gpu.md)."""


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
    """Makes the operators of one batch, for groups of its segments and their slots in a pool."""

    def __init__(
        self,
        pools: TaskPools,
        shared: DeviceBackbone,
        how: OnDevice,
        tables: BatchTables,
    ) -> None:
        self._tables = tables
        self._pools = pools
        self._shared = shared
        self._kernels = how.kernels

    def masked_product(
        self, product: Product, group: SegmentGroup, slots: Sequence[int]
    ) -> PlacedOperator:
        """Return the product by masked weights, which replaces the shared one."""
        num_out, num_in = self._weight(0, product).shape
        pool = self._pools.masks(product)
        tiles = self._product_tiles(group, slots, num_out, BUSY_BLOCKS)

        def run(layer: int, y: torch.Tensor, x: torch.Tensor) -> None:
            kept = pool.at(layer, "kept")
            weight = self._weight(layer, product)
            masked_product_(y, x, weight, kept, self._on_device(tiles), self._kernels)

        def work() -> Work:
            return masked_product_work(group.nums_tokens, num_in, num_out, self._element_bytes)

        launches = ("masked_product", product, tiles.tile_rows, pool.generation)
        return PlacedOperator(launches, work, run)

    def sparse_delta(
        self, product: Product, num_changes: int, group: SegmentGroup, slots: Sequence[int]
    ) -> PlacedOperator:
        """Return the sparse product of changes beside the shared one."""
        pool = self._pools.sparse(product, num_changes)
        num_out, num_in = self._weight(0, product).shape
        tiles = self._tiles(group, slots, DELTA_ROWS)
        firsts = self._pools.first_changes(product, num_changes)

        def run(layer: int, y: torch.Tensor, x: torch.Tensor) -> None:
            columns, values = (pool.at(layer, name).view(-1) for name in ("columns", "values"))
            changes = SparsePool(columns, values, pool.at(layer, "row_offsets"), firsts, firsts)
            weight = self._weight(layer, product)
            add_sparse_delta_(y, x, weight, changes, self._on_device(tiles), self._kernels)

        def work() -> Work:
            changes_of, element_bytes = [num_changes] * len(slots), self._element_bytes
            return sparse_delta_work(group.nums_tokens, changes_of, num_in, num_out, element_bytes)

        launches = ("sparse_delta", product, num_changes, pool.generation)
        return PlacedOperator(launches, work, run)

    def low_rank(
        self, product: Product, rank: int, group: SegmentGroup, slots: Sequence[int]
    ) -> PlacedOperator:
        """Return low-rank updates of one rank."""
        pool, blocks = self._pools.low_rank(product, rank), len(SITES_OF[product])
        num_out, num_in = self._weight(0, product).shape
        if max(group.nums_tokens) <= FEW_ROWS:
            table, tile_rows = self.token_slots(group, slots), None
        else:
            tile_rows = group.tile_rows(blocks * rank, LARGE_TILE_BLOCKS)
            limit = self._shared.block_bytes
            if limit is not None and low_rank_shared_bytes(rank, self._shared.dtype) > limit:
                tile_rows = max(TILE_ROWS)
            table = self._tiles(group, slots, tile_rows).number

        def run(layer: int, y: torch.Tensor, x: torch.Tensor) -> None:
            factors = LowRankPool(pool.at(layer, "down"), pool.at(layer, "up"))
            entries = self._tables[table]
            grouped = entries if tile_rows is None else TileTable(entries, tile_rows)
            add_low_rank_(y, x, factors, grouped, self._kernels)

        def work() -> Work:
            rows, element_bytes = group.nums_tokens, self._element_bytes
            return low_rank_work(rows, num_in, num_out, rank, blocks, element_bytes)

        launches = ("low_rank", product, rank, tile_rows, pool.generation)
        return PlacedOperator(launches, work, run)

    def bottleneck(
        self, product: Product, bottleneck: int, group: SegmentGroup, slots: Sequence[int]
    ) -> PlacedOperator:
        """Return adapters of one width."""
        pool = self._pools.adapters(product, bottleneck)
        tiles = self._product_tiles(group, slots, bottleneck, BUSY_BLOCKS)
        hidden = len(self._weight(0, product))

        def run(layer: int, y: torch.Tensor, x: torch.Tensor) -> None:
            adapters = BottleneckPool(*(pool.at(layer, name) for name in BottleneckPool._fields))
            add_bottleneck_(y, adapters, self._on_device(tiles), self._kernels)

        def work() -> Work:
            return bottleneck_work(group.nums_tokens, hidden, bottleneck, self._element_bytes)

        launches = ("bottleneck", product, bottleneck, tiles.tile_rows, pool.generation)
        return PlacedOperator(launches, work, run)

    def token_slots(self, group: SegmentGroup, slots: Sequence[int]) -> int:
        """Return the number of the table of each token's slot."""
        return self._tables.add(group.token_slots(slots))

    def _product_tiles(
        self, group: SegmentGroup, slots: Sequence[int], columns: int, busy_blocks: int
    ) -> "_Tiles":
        return self._tiles(group, slots, group.tile_rows(columns, busy_blocks))

    def _tiles(self, group: SegmentGroup, slots: Sequence[int], tile_rows: int) -> "_Tiles":
        return _Tiles(self._tables.add(group.tiles(slots, tile_rows)), tile_rows)

    def _on_device(self, tiles: "_Tiles") -> TileTable:
        return TileTable(self._tables[tiles.number], tiles.tile_rows)

    def _weight(self, layer: int, product: Product) -> torch.Tensor:
        return self._shared.products[layer, product].weight

    @property
    def _element_bytes(self) -> int:
        return self._shared.dtype.itemsize
