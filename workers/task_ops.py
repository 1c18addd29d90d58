"""A task's PET in the form that the engine runs: torch tensors, one set per product of a layer.

Query, key and value are one product here, so their ops are laid side by side: biases and scales
end to end, low-rank down factors one below the other, sparse changes with their positions moved.
Floats are held as float16 where that loses nothing, as with those of a float16 file; what they are
when they run is `workers/expanded_weights.py`. As float32 stays what is small beside the rest of
its kind: biases of adapters, gates, heads.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray

from gpu_ops.activations import ACTIVATIONS
from gpu_ops.bottleneck import BottleneckWeights
from gpu_ops.compacter import CompacterWeights, KroneckerFactors
from gpu_ops.layer_norm import NormDeltas, NormWeights
from gpu_ops.low_rank import LowRankFactors, UpFactor
from gpu_ops.ragged_head import HeadWeights, HiddenWeights
from gpu_ops.row_gate import GateWeights
from gpu_ops.sparse_delta import SparseWeights, sparse_weights
from gpu_ops.sublayer_adapter import SublayerAdapter
from gpu_ops.varlen_attention import PrefixStates
from tasks.backbone_shape import NORM_SITES, NormSite
from tasks.site_ops import (
    Bottleneck,
    Gate,
    KroneckerSum,
    LowRank,
    Norm,
    PetWeights,
    Prefix,
    SiteOps,
    SparseDelta,
)
from workers.backbone import (
    PRODUCTS,
    SITES_OF,
    Backbone,
    LinearWeights,
    Product,
    shared_tensors,
)
from workers.break_even import NEVER
from workers.embedding_ops import EmbeddingOps, embedding_ops
from workers.errors import TaskUnsupportedError
from workers.task_tensors import (
    as_tensor,
    in_one_piece,
    narrow_tensor,
    narrowed,
    norm_deltas,
    replaced,
    tensors_within,
)


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class SparseChange:
    """A sparse change and how it is best applied."""

    weights: SparseWeights
    patch_from_rows: int = NEVER
    """From how many rows on it is written into a copy of the shared weight."""
    keep_from_rows: int = NEVER
    """From how many rows on such a copy is used that is there already."""


@dataclass(frozen=True, slots=True, eq=False)
class ProductOps:
    """One task's ops at one product; absent ones are None."""

    bias: torch.Tensor | None = None
    """Shape (out,), added behind the output scale."""
    low_rank: LowRankFactors | None = None
    input_scale: torch.Tensor | None = None
    """Shape (in,)."""
    output_scale: torch.Tensor | None = None
    """Shape (out,)."""
    sparse: SparseChange | None = None
    dense: torch.Tensor | None = None
    """Shape (out, in), added to the shared weight."""
    adapter: BottleneckWeights | CompacterWeights | None = None
    """At `attention_output` and `ffn_output` only, as is the following."""
    sublayer_adapter: SublayerAdapter | None = None


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class PrefixOps:
    """One task's prefix at one layer."""

    states: PrefixStates
    gate: GateWeights | None
    """Over the layer's input; multiplies keys and values."""


@dataclass(frozen=True, slots=True, eq=False)
class TaskOps:
    """All of one task's weights for one backbone."""

    products: Mapping[tuple[int, Product], ProductOps]
    norms: Mapping[tuple[int, NormSite], NormDeltas]
    prefixes: Mapping[int, PrefixOps]
    """By layer."""
    embeddings: EmbeddingOps | None
    head: HeadWeights
    num_bytes: int
    """What the tensors occupy; those that are the backbone's own do not count."""


def build_task_ops(pet: PetWeights, backbone: Backbone) -> TaskOps:
    """Lay a validated PET out for a backbone of the same shape.

    Raises:
        TaskUnsupportedError: If an op stands at a site where the engine has no place for it.
    """
    products: dict[tuple[int, Product], ProductOps] = {}
    norms: dict[tuple[int, NormSite], NormDeltas] = {}
    for layer in range(backbone.shape.num_layers):
        for product in PRODUCTS:
            sites = [pet.sites.get((layer, site), SiteOps()) for site in SITES_OF[product]]
            ops = _product_ops(sites, product, backbone.products[layer, product])
            if ops is not None:
                products[layer, product] = ops
        for norm_site in NORM_SITES:
            deltas = pet.sites.get((layer, norm_site))
            if deltas is not None:
                norms[layer, norm_site] = norm_deltas(deltas)
    prefixes = {
        layer: _prefix(ops.prefix)
        for (layer, site), ops in pet.sites.items()
        if site == "attention" and ops.prefix is not None
    }
    at_embeddings = pet.sites.get((0, "embeddings"))
    embeddings = None if at_embeddings is None else embedding_ops(at_embeddings, backbone)
    head = _head(pet, backbone)
    shared = {id(tensor) for tensor in shared_tensors(backbone)}
    laid_out = TaskOps(products, norms, prefixes, embeddings, head, num_bytes=0)
    own = [tensor for tensor in tensors_within(laid_out) if id(tensor) not in shared]
    copies = {id(old): copy for old, copy in zip(own, in_one_piece(own), strict=True)}
    moved: TaskOps = replaced(laid_out, lambda tensor: copies.get(id(tensor), tensor))
    return replace(moved, num_bytes=sum(tensor.nbytes for tensor in own))


def _head(pet: PetWeights, backbone: Backbone) -> HeadWeights:
    hidden = pet.head_hidden
    layer = None
    if hidden is not None and hidden.weight is not None and hidden.bias is not None:
        layer = HiddenWeights(as_tensor(hidden.weight), as_tensor(hidden.bias), hidden.activation)
    elif hidden is not None:
        if backbone.pooler is None:
            raise TaskUnsupportedError(
                f"the task's head reads the backbone's pooler, and {backbone.name} has none: give "
                "the head a hidden layer of its own"
            )
        layer = HiddenWeights(backbone.pooler.weight, backbone.pooler.bias, hidden.activation)
    if pet.head_weight is None or pet.head_bias is None:
        return HeadWeights(None, None, layer)
    return HeadWeights(as_tensor(pet.head_weight), as_tensor(pet.head_bias), layer)


def _prefix(prefix: Prefix) -> PrefixOps:
    gate = None if prefix.gate is None else _gate(prefix.gate)
    states = PrefixStates(narrow_tensor(prefix.keys), narrow_tensor(prefix.values))
    return PrefixOps(states, gate)


def _gate(gate: Gate) -> GateWeights:
    return GateWeights(as_tensor(gate.weight), as_tensor(gate.bias))


def _product_ops(
    sites: list[SiteOps], product: Product, shared: LinearWeights
) -> ProductOps | None:
    """Return the ops of the sites that one product has, side by side; None where there are none.

    Args:
        sites: Of that product.
        product: Its name.
        shared: Its weights.
    """
    shape = shared.weight.shape
    num_out = shape[0] // len(sites)
    _check_places(sites, product)
    sites = [
        site if site.magnitude is None else _normalised(site, block_weight, block_bias)
        for site, block_weight, block_bias in zip(
            sites,
            torch.split(shared.weight, num_out),
            torch.split(shared.bias, num_out),
            strict=True,
        )
    ]
    adapter = sites[0].adapter
    ops = ProductOps(
        bias=_side_by_side([site.bias for site in sites], num_out, fill=0.0),
        low_rank=_low_rank([site.low_rank for site in sites], num_out),
        input_scale=None if sites[0].input_scale is None else narrow_tensor(sites[0].input_scale),
        output_scale=_side_by_side([site.output_scale for site in sites], num_out, fill=1.0),
        sparse=_sparse([site.sparse for site in sites], shape),
        dense=_dense([site.dense for site in sites], shape),
        adapter=_projections(adapter) if adapter is not None and adapter.is_plain else None,
        sublayer_adapter=(
            _sublayer_adapter(adapter) if adapter is not None and not adapter.is_plain else None
        ),
    )
    return ops if any(getattr(ops, field.name) is not None for field in fields(ops)) else None


def _check_places(sites: list[SiteOps], product: Product) -> None:
    scales = [site.input_scale for site in sites if site.input_scale is not None]
    if scales and (
        len(scales) < len(sites) or not all(np.array_equal(scale, scales[0]) for scale in scales)
    ):
        raise TaskUnsupportedError(
            f"the task scales the inputs of {product} differently: query, key and value are one "
            f"product over one input"
        )
    for site in sites:
        if site.magnitude is not None and (site.sparse is not None or site.dense is not None):
            raise TaskUnsupportedError(
                f"the task normalises {product} and changes its weight: the engine runs either"
            )
        if site.input_scale is not None and site.low_rank is not None:
            raise TaskUnsupportedError(
                f"the task has a scaled input and a low-rank update at {product}: the engine runs "
                "either"
            )
        if site.adapter is not None and product not in ("attention_output", "ffn_output"):
            raise TaskUnsupportedError(
                f"the task has an adapter after {product}: the engine runs adapters after "
                "attention_output and ffn_output only"
            )


def _side_by_side(
    parts: list[NDArray[np.float32] | None], num_out: int, *, fill: float
) -> torch.Tensor | None:
    if all(part is None for part in parts):
        return None
    return narrowed(
        torch.cat(
            [torch.full((num_out,), fill) if part is None else as_tensor(part) for part in parts]
        )
    )


def _low_rank(parts: list[LowRank | None], num_out: int) -> LowRankFactors | None:
    downs: list[torch.Tensor] = []
    ups: list[UpFactor] = []
    rank = 0
    for index, part in enumerate(parts):
        if part is not None:
            downs.append(as_tensor(part.a))
            gate = None if part.gate is None else _gate(part.gate)
            up = narrowed(as_tensor(part.b) * part.scale)
            ups.append(UpFactor(rank, index * num_out, up, gate))
            rank += len(part.a)
    return LowRankFactors(narrowed(torch.cat(downs)), tuple(ups)) if ups else None


def _sparse(parts: list[SparseDelta | None], shape: torch.Size) -> SparseChange | None:
    present = [(index, part) for index, part in enumerate(parts) if part is not None]
    if not present:
        return None
    num_out, num_in = shape
    block = num_out // len(parts) * num_in
    flat_indices = torch.cat(
        [
            torch.from_numpy(part.flat_indices.astype(np.int32)) + index * block
            for index, part in present
        ]
    )
    values = [part.values for _, part in present if part.values is not None]
    if len(values) not in (0, len(present)):
        raise TaskUnsupportedError(
            "the task drops weights at one site of a product and adds to others"
        )
    return SparseChange(
        sparse_weights(
            flat_indices,
            narrowed(torch.cat([as_tensor(some) for some in values])) if values else None,
            (num_out, num_in),
        )
    )


def _dense(parts: list[NDArray[np.float32] | None], shape: torch.Size) -> torch.Tensor | None:
    if all(part is None for part in parts):
        return None
    block = torch.Size((shape[0] // len(parts), shape[1]))
    return narrowed(
        torch.cat([torch.zeros(block) if part is None else as_tensor(part) for part in parts])
    )


def _normalised(site: SiteOps, weight: torch.Tensor, bias: torch.Tensor) -> SiteOps:
    """Return DoRA's op as an output scale and a bias: m / ||V|| * (x V^T + b) + (1 - m / ||V||) b.

    Args:
        site: With a magnitude.
        weight: Shape (out, in), of this site alone.
        bias: Shape (out,).
    """
    assert site.magnitude is not None
    direction = weight
    if site.low_rank is not None:
        a, b = as_tensor(site.low_rank.a), as_tensor(site.low_rank.b)
        direction = torch.addmm(weight, b, a, alpha=site.low_rank.scale)
    scale = as_tensor(site.magnitude) / torch.linalg.vector_norm(direction, dim=1)
    kept_bias = (1 - scale) * bias
    if site.bias is not None:
        kept_bias = kept_bias + as_tensor(site.bias)
    return replace(site, output_scale=scale.numpy(), bias=kept_bias.numpy())


def _sublayer_adapter(adapter: Bottleneck) -> SublayerAdapter:
    return SublayerAdapter(
        projections=_projections(adapter),
        reads=adapter.reads,
        adds_to=adapter.adds_to,
        norm_before=None if adapter.norm_before is None else _own_norm(adapter.norm_before),
        norm_after=None if adapter.norm_after is None else _own_norm(adapter.norm_after),
        norm_after_on=adapter.norm_after_on,
        gate=None if adapter.gate is None else _gate(adapter.gate),
        skips_norm=adapter.skips_norm,
    )


def _own_norm(norm: Norm) -> NormWeights:
    return NormWeights(as_tensor(norm.weight), as_tensor(norm.bias))


def _projections(adapter: Bottleneck) -> BottleneckWeights | CompacterWeights:
    down, up = adapter.down_weight, adapter.up_weight
    if adapter.activation not in ACTIVATIONS:
        raise TaskUnsupportedError(
            f"an adapter's activation is {adapter.activation!r}: the engine has "
            f"{', '.join(ACTIVATIONS)}"
        )
    if isinstance(down, KroneckerSum) and isinstance(up, KroneckerSum):
        return CompacterWeights(
            down=_factors(down),
            down_bias=narrow_tensor(adapter.down_bias),
            up=_factors(up),
            up_bias=narrow_tensor(adapter.up_bias),
            activation=adapter.activation,
        )
    assert isinstance(down, np.ndarray)
    assert isinstance(up, np.ndarray)
    return BottleneckWeights(
        down_weight=narrow_tensor(down),
        down_bias=as_tensor(adapter.down_bias),
        up_weight=narrow_tensor(up),
        up_bias=as_tensor(adapter.up_bias),
        activation=adapter.activation,
    )


def _factors(weight: KroneckerSum) -> KroneckerFactors:
    right = None if weight.right is None else narrow_tensor(weight.right)
    return KroneckerFactors(narrow_tensor(weight.rule), narrow_tensor(weight.left), right)
