"""Which operators a batch needs behind each product, on which rows, and on which stream.

Made once for a batch, and once for the tokens of it that its last layer reads; its tables are the
same for all layers. Operators of one place whose rows do
not meet may run side by side; those that have tasks in common run in turn.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from itertools import chain
from operator import add
from typing import Literal, NamedTuple

import torch

from gpu_ops.grouped.operator_schedule import Work, deal, intensity
from workers.backbone import PRODUCTS, Product
from workers.grouped.batch_tables import BatchTables
from workers.grouped.device_backbone import DeviceBackbone
from workers.grouped.on_device import OnDevice
from workers.grouped.pass_sizes import PassSizes, pass_sizes
from workers.grouped.placed_operators import PlacedOperator, PlacedOperators
from workers.grouped.segment_group import SegmentGroup
from workers.grouped.slot_pool import SlotPool
from workers.grouped.task_form import Place, TaskForm
from workers.grouped.task_pools import TaskPools
from workers.loaded_task import LoadedTask
from workers.packed_batch import PackedBatch, Segment
from workers.task_ops import ProductOps


@dataclass(frozen=True, slots=True, eq=False)
class BatchPlan:
    """What the tasks of a batch do."""

    sizes: PassSizes | None
    """What its tables have room for, so that it can be captured; None: for this batch alone."""
    tables: BatchTables
    """Which rows are whose."""
    vectors_number: int
    """Of the table of `vector_slots`."""
    scales_number: int | None
    launches: Hashable
    """What is launched, and where its weights are: equal where only tables differ."""
    changes: Mapping[Product, Sequence[Sequence[PlacedOperator]]]
    """The operators of each stream; without a product that has none."""
    all_masked: frozenset[Product]
    """Products of which every row's is replaced: the shared one is not needed."""
    looped: Mapping[Place, Sequence[tuple[Segment, ProductOps]]]
    """What torch runs, segment by segment; without a place that has none."""

    @property
    def vector_slots(self) -> torch.Tensor:
        """Shape (num_tokens,), int32, of `TaskPools.vectors`."""
        return self.tables[self.vectors_number]

    @property
    def scale_slots(self) -> torch.Tensor | None:
        """Likewise, of `TaskPools.scales`; None: no task scales."""
        return None if self.scales_number is None else self.tables[self.scales_number]


def plan_batch(
    batch: PackedBatch,
    pools: TaskPools,
    shared: DeviceBackbone,
    how: OnDevice,
    *,
    may_capture: bool = False,
) -> BatchPlan:
    """Give the batch's tasks their slots and put together what runs where.

    Pools keep the batch's slots, and their tensors, until the next batch is planned.

    Args:
        batch: On the device, its tasks too.
        pools: Of the encoder.
        shared: The backbone.
        how: To launch.
        may_capture: Make its tables for a pass that is captured, unless its tasks have what the
            host decides about while a pass runs: prefixes, and places that torch runs.
    """
    return _Planner(batch, pools, shared, how, may_capture=may_capture).plan()


SizedFamily = Literal["sparse", "low_ranks", "adapters"]
"""Of operators that have a pool for each size: the fields of `TaskForm`."""


class _Use(NamedTuple):
    """A pool that segments need behind a product."""

    users: tuple[int, ...]
    """Numbers of the segments."""
    pool: SlotPool
    make: Callable[[SegmentGroup, Sequence[int]], PlacedOperator]
    """Makes the operator for some of them, with their slots."""


class _Own(NamedTuple):
    """An operator and the numbers of the segments whose rows it changes."""

    segments: frozenset[int]
    operator: PlacedOperator


class _Planner:
    def __init__(
        self,
        batch: PackedBatch,
        pools: TaskPools,
        shared: DeviceBackbone,
        how: OnDevice,
        *,
        may_capture: bool,
    ) -> None:
        self._segments = batch.segments
        self._num_tokens = len(batch.token_ids)
        self._pools = pools
        self._how = how
        # Tasks that are alike share their form: what goes by it is looked up for all of them.
        self._users_of_form: dict[TaskForm, list[int]] = {}
        for number, segment in enumerate(batch.segments):
            self._users_of_form.setdefault(pools.form_of(segment.task), []).append(number)
        self._groups: dict[tuple[int, ...], SegmentGroup] = {}
        self._tasks_of: dict[tuple[int, ...], list[LoadedTask]] = {}
        decides = any(form.has_prefixes or form.looped for form in self._users_of_form)
        self._sizes = None
        if may_capture and not decides:
            self._sizes = pass_sizes(batch.row_lens, self._num_tokens)
        self._tables = BatchTables(shared.device)
        self._make = PlacedOperators(pools, shared, how, self._tables)

    def plan(self) -> BatchPlan:
        pools = self._pools
        owning = self._users(lambda form: form.has_vectors)
        scaling = self._users(lambda form: form.has_scales)
        uses = {product: self._uses(product) for product in PRODUCTS}
        needs = {use.pool: use.users for of in uses.values() for use in of}
        needs |= {pools.vectors: owning, pools.scales: scaling}
        pools.memory.give_slots({pool: self._tasks(users) for pool, users in needs.items()})
        vectors = self._token_slots(pools.vectors, owning)
        scales = self._token_slots(pools.scales, scaling) if scaling else None
        changes = {
            product: self._dealt([own for use in of for own in self._units(use)])
            for product, of in uses.items()
            if of
        }
        all_masked = frozenset.intersection(*(form.masked for form in self._users_of_form))
        return BatchPlan(
            sizes=self._sizes,
            tables=self._tables,
            vectors_number=vectors,
            scales_number=scales,
            launches=(
                pools.vectors.generation,
                None if scales is None else pools.scales.generation,
                all_masked,
                tuple(
                    (product, tuple(tuple(one.launches for one in of) for of in streams))
                    for product, streams in changes.items()
                ),
            ),
            changes=changes,
            all_masked=all_masked,
            looped=self._looped(),
        )

    def _looped(self) -> dict[Place, list[tuple[Segment, ProductOps]]]:
        looped: dict[Place, list[tuple[Segment, ProductOps]]] = {}
        for form, users in self._users_of_form.items():
            for place, ops in form.looped.items():
                looped.setdefault(place, []).extend((self._segments[user], ops) for user in users)
        return looped

    def _uses(self, product: Product) -> list[_Use]:
        """Return what changes a product; of one task, in the order in which it is to run."""
        pools, make = self._pools, self._make
        masked = self._users(lambda form: product in form.masked)
        found = []
        if masked:
            found.append(_Use(masked, pools.masks(product), partial(make.masked_product, product)))
        for size, users in self._by_size("sparse", product):
            operator = partial(make.sparse_delta, product, size)
            found.append(_Use(users, pools.sparse(product, size), operator))
        for rank, users in self._by_size("low_ranks", product):
            operator = partial(make.low_rank, product, rank)
            found.append(_Use(users, pools.low_rank(product, rank), operator))
        for width, users in self._by_size("adapters", product):
            operator = partial(make.bottleneck, product, width)
            found.append(_Use(users, pools.adapters(product, width), operator))
        return found

    def _units(self, use: _Use) -> list[_Own]:
        """Return one operator for all users of a pool, or one for each, as is asked for."""
        is_grouped = self._how.unit == "grouped"
        units = [use.users] if is_grouped else [(user,) for user in use.users]
        return [
            _Own(frozenset(unit), use.make(self._group(unit), self._slots(use.pool, unit)))
            for unit in units
        ]

    def _dealt(self, operators: Sequence[_Own]) -> list[list[PlacedOperator]]:
        if self._how.num_streams == 1:
            # As they come: by intensity their order would go by the batch's rows, and with it
            # which graph the batch is.
            return [[own.operator for own in operators]]
        chains = _chains(operators)
        intensities = [intensity(one.work()) for one in chains]
        return deal(chains, intensities, self._how.num_streams)

    def _users(self, has: Callable[[TaskForm], bool]) -> tuple[int, ...]:
        of_forms = [users for form, users in self._users_of_form.items() if has(form)]
        return tuple(sorted(chain.from_iterable(of_forms)))

    def _by_size(self, family: SizedFamily, product: Product) -> list[tuple[int, tuple[int, ...]]]:
        """Return each size with its users, ascending."""
        users_of_size: dict[int, list[int]] = {}
        for form, users in self._users_of_form.items():
            sizes: Mapping[Product, int] = getattr(form, family)
            if product in sizes:
                users_of_size.setdefault(sizes[product], []).extend(users)
        return [(size, tuple(sorted(users))) for size, users in sorted(users_of_size.items())]

    def _token_slots(self, pool: SlotPool, users: tuple[int, ...]) -> int:
        return self._make.token_slots(self._group(users), self._slots(pool, users))

    def _group(self, users: tuple[int, ...]) -> SegmentGroup:
        group = self._groups.get(users)
        if group is None:
            segments = [self._segments[user] for user in users]
            group = SegmentGroup(segments, self._num_tokens, self._sizes)
            self._groups[users] = group
        return group

    def _slots(self, pool: SlotPool, users: tuple[int, ...]) -> list[int]:
        return pool.slots_of(self._tasks(users))

    def _tasks(self, users: tuple[int, ...]) -> list[LoadedTask]:
        tasks = self._tasks_of.get(users)
        if tasks is None:
            tasks = self._tasks_of[users] = [self._segments[user].task for user in users]
        return tasks


def _chains(operators: Sequence[_Own]) -> list[PlacedOperator]:
    """Return operators that may run side by side: those that have segments in common become one."""
    chains: list[list[_Own]] = []
    for one in operators:
        meeting = [chain for chain in chains if any(one.segments & own.segments for own in chain)]
        chains = [chain for chain in chains if chain not in meeting]
        chains.append([*(own for chain in meeting for own in chain), one])
    return [_in_turn([own.operator for own in chain]) for chain in chains]


def _in_turn(operators: Sequence[PlacedOperator]) -> PlacedOperator:
    def run(layer: int, y: torch.Tensor, x: torch.Tensor) -> None:
        for one in operators:
            one.run(layer, y, x)

    def work() -> Work:
        return reduce(add, [one.work() for one in operators])

    return PlacedOperator(tuple(one.launches for one in operators), work, run)
