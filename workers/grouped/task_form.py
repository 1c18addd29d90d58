"""Which of a task's ops grouped operators run, and in which pools their weights stand.

A place is a product of a layer. What kernels do not know (gates, dense deltas, adapters with a way
of their own, scales where no kernel has one) makes its place a looped one: torch runs all of the
task's ops there, for its rows alone (`workers.grouped.looped_place`).
"""

from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass

from gpu_ops.compacter import CompacterWeights
from workers.backbone import NORM_BEHIND, PRODUCTS, SITES_OF, Backbone, Product
from workers.power_of_two import power_of_two
from workers.task_ops import ProductOps, TaskOps

KERNEL_ACTIVATIONS = ("gelu", "relu")
"""Of adapters."""
SMALLEST_RANK = 8
"""Rows of a factor are read 16 bytes at a time."""
SMALLEST_BOTTLENECK = 16

Place = tuple[int, Product]


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class TaskForm:
    """What a task needs of each family of grouped operators; equal only to itself."""

    has_vectors: bool
    """Biases or LayerNorms of its own, or looped places, whose rows get no shared bias."""
    has_scales: bool
    low_ranks: Mapping[Product, int]
    """Rank in the pool."""
    adapters: Mapping[Product, int]
    """Bottleneck in the pool."""
    sparse: Mapping[Product, int]
    """Changes in the pool, of the layer that has most."""
    masked: frozenset[Product]
    has_prefixes: bool
    looped: Mapping[Place, ProductOps]

    @property
    def grouped_needs(self) -> Hashable:
        """All but `looped`, which is the task's own: equal of tasks that use the same pools."""
        sizes = (self.low_ranks, self.adapters, self.sparse)
        of_pools = tuple(tuple(of.items()) for of in sizes)
        return self.has_vectors, self.has_scales, of_pools, self.masked, self.has_prefixes


def task_form(
    ops: TaskOps, backbone: Backbone, sparse_products: Collection[Product] = PRODUCTS
) -> TaskForm:
    """Sort a task's ops by what runs them.

    Args:
        ops: The task's.
        backbone: What it was laid out for.
        sparse_products: Those whose sparse changes the device has a kernel for.
    """
    looped = {
        (layer, product): at_place
        for (layer, product), at_place in ops.products.items()
        if not _is_grouped(at_place, product, backbone)
        or (_num_added(at_place) and product not in sparse_products)
    }
    grouped = {place: own for place, own in ops.products.items() if place not in looped}
    by_product: dict[Product, list[ProductOps]] = {
        product: [own for (_, at), own in grouped.items() if at == product] for product in PRODUCTS
    }
    ranks = {p: max(map(_rank, of), default=0) for p, of in by_product.items()}
    widths = {p: max(map(_bottleneck, of), default=0) for p, of in by_product.items()}
    sparse = {p: max(map(_num_added, of), default=0) for p, of in by_product.items()}
    return TaskForm(
        has_vectors=bool(looped or ops.norms)
        or any(own.bias is not None for own in grouped.values()),
        has_scales=any(
            own.output_scale is not None or own.input_scale is not None for own in grouped.values()
        ),
        low_ranks={p: power_of_two(rank, SMALLEST_RANK) for p, rank in ranks.items() if rank},
        adapters={
            p: power_of_two(width, SMALLEST_BOTTLENECK) for p, width in widths.items() if width
        },
        sparse={p: power_of_two(num) for p, num in sparse.items() if num},
        masked=frozenset(p for p, of in by_product.items() if any(map(_drops, of))),
        has_prefixes=bool(ops.prefixes),
        looped=looped,
    )


def _rank(ops: ProductOps) -> int:
    """Return the largest rank of a block of outputs."""
    ranks: dict[int, int] = {}
    for up in () if ops.low_rank is None else ops.low_rank.ups:
        ranks[up.first_output] = ranks.get(up.first_output, 0) + up.weight.shape[1]
    return max(ranks.values(), default=0)


def _is_grouped(ops: ProductOps, product: Product, backbone: Backbone) -> bool:
    """Return whether kernels do all that a task does at a product."""
    has_scale = ops.output_scale is not None
    return (
        ops.dense is None
        and ops.sublayer_adapter is None
        # Behind the activation, where the kernel of ffn_input scales what ffn_output reads.
        and (ops.input_scale is None or product == "ffn_output")
        and (not has_scale or (product not in (*NORM_BEHIND, "ffn_input") and ops.bias is None))
        and _has_whole_ups(ops, product, backbone)
        and _is_kernel_adapter(ops)
    )


def _has_whole_ups(ops: ProductOps, product: Product, backbone: Backbone) -> bool:
    if ops.low_rank is None:
        return True
    block = len(backbone.products[0, product].bias) // len(SITES_OF[product])
    return all(
        up.gate is None and up.first_output % block == 0 and len(up.weight) == block
        for up in ops.low_rank.ups
    )


def _is_kernel_adapter(ops: ProductOps) -> bool:
    return ops.adapter is None or ops.adapter.activation in KERNEL_ACTIVATIONS


def _bottleneck(ops: ProductOps) -> int:
    if ops.adapter is None:
        return 0
    if isinstance(ops.adapter, CompacterWeights):
        return len(ops.adapter.down_bias)
    return len(ops.adapter.down_weight)


def _num_added(ops: ProductOps) -> int:
    has_values = ops.sparse is not None and ops.sparse.weights.values is not None
    return ops.sparse.weights.num_changed if ops.sparse is not None and has_values else 0


def _drops(ops: ProductOps) -> bool:
    return ops.sparse is not None and ops.sparse.weights.values is None
