"""A task's PET in the form that the engine runs: torch tensors, one set per product of a layer.

Query, key and value are one product here, so their ops are laid side by side: biases and scales
end to end, low-rank down factors one below the other, sparse changes with their positions moved.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from gpu_ops.bottleneck import BottleneckWeights
from gpu_ops.layer_norm import NormWeights
from gpu_ops.low_rank import LowRankFactors, UpFactor
from gpu_ops.ragged_head import HeadWeights
from gpu_ops.sparse_delta import SparseWeights, sparse_weights
from tasks.backbone_shape import NORM_SITES, NormSite
from tasks.site_ops import LowRank, PetWeights, SiteOps, SparseDelta
from workers.backbone import PRODUCTS, SITES_OF, Backbone, Product
from workers.break_even import NEVER
from workers.errors import TaskUnsupportedError


@dataclass(frozen=True, slots=True, eq=False)
class SparseChange:
    """A sparse change and how it is best applied."""

    weights: SparseWeights
    patch_from_rows: int = NEVER
    """From how many rows on it is written into a copy of the shared weight."""


@dataclass(frozen=True, slots=True, eq=False)
class ProductOps:
    """One task's ops at one product; absent ones are None."""

    bias: torch.Tensor | None = None
    """Shape (out,), added to the shared bias."""
    low_rank: LowRankFactors | None = None
    input_scale: torch.Tensor | None = None
    """Shape (in,); at `ffn_output` only."""
    output_scale: torch.Tensor | None = None
    """Shape (out,)."""
    sparse: SparseChange | None = None
    adapter: BottleneckWeights | None = None
    """At `attention_output` and `ffn_output` only."""


@dataclass(frozen=True, slots=True, eq=False)
class TaskOps:
    """All of one task's weights for one backbone."""

    products: Mapping[tuple[int, Product], ProductOps]
    norms: Mapping[tuple[int, NormSite], NormWeights]
    """Whole gammas and betas: shared plus delta."""
    head: HeadWeights
    num_bytes: int
    """What the tensors occupy; those that are the backbone's own do not count."""


def build_task_ops(pet: PetWeights, backbone: Backbone) -> TaskOps:
    """Lay a validated PET out for a backbone of the same shape.

    Raises:
        TaskUnsupportedError: If an op stands at a site where the engine has no place for it.
    """
    products: dict[tuple[int, Product], ProductOps] = {}
    norms: dict[tuple[int, NormSite], NormWeights] = {}
    for layer in range(backbone.shape.num_layers):
        for product in PRODUCTS:
            sites = [pet.sites.get((layer, site), SiteOps()) for site in SITES_OF[product]]
            ops = _product_ops(sites, product, backbone.products[layer, product].weight.shape)
            if ops is not None:
                products[layer, product] = ops
        for norm_site in NORM_SITES:
            deltas = pet.sites.get((layer, norm_site))
            if deltas is not None:
                norms[layer, norm_site] = _norm(deltas, backbone.norms[layer, norm_site])
    head = HeadWeights(_tensor(pet.head_weight), _tensor(pet.head_bias))
    shared = {id(tensor) for norm in backbone.norms.values() for tensor in norm}
    num_bytes = sum(
        tensor.untyped_storage().nbytes()
        for part in (*products.values(), *norms.values(), head)
        for tensor in _tensors(part)
        if id(tensor) not in shared
    )
    return TaskOps(products, norms, head, num_bytes)


def _product_ops(sites: list[SiteOps], product: Product, shape: torch.Size) -> ProductOps | None:
    """Return the ops of the sites that one product has, side by side; None where there are none.

    Args:
        sites: Of that product.
        product: Its name.
        shape: Of its weight.
    """
    num_out = shape[0] // len(sites)
    _check_places(sites, product)
    ops = ProductOps(
        bias=_side_by_side([site.bias for site in sites], num_out, fill=0.0),
        low_rank=_low_rank([site.low_rank for site in sites], num_out),
        input_scale=None if sites[0].input_scale is None else _tensor(sites[0].input_scale),
        output_scale=_side_by_side([site.output_scale for site in sites], num_out, fill=1.0),
        sparse=_sparse([site.sparse for site in sites], shape),
        adapter=_adapter(sites[0]),
    )
    return ops if any(getattr(ops, field.name) is not None for field in fields(ops)) else None


def _check_places(sites: list[SiteOps], product: Product) -> None:
    for site in sites:
        if site.input_scale is not None and product != "ffn_output":
            raise TaskUnsupportedError(
                f"the task scales the input of {product}: the engine scales that of ffn_output only"
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
    return torch.cat(
        [torch.full((num_out,), fill) if part is None else _tensor(part) for part in parts]
    )


def _low_rank(parts: list[LowRank | None], num_out: int) -> LowRankFactors | None:
    downs: list[torch.Tensor] = []
    ups: list[UpFactor] = []
    rank = 0
    for index, part in enumerate(parts):
        if part is not None:
            downs.append(_tensor(part.a))
            ups.append(UpFactor(rank, index * num_out, _tensor(part.b) * part.scale))
            rank += len(part.a)
    return LowRankFactors(torch.cat(downs), tuple(ups)) if ups else None


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
            _narrowed(torch.cat([_tensor(some) for some in values])) if values else None,
            (num_out, num_in),
        )
    )


def _narrowed(values: torch.Tensor) -> torch.Tensor:
    """Return the values as float16 where that loses nothing, as with those of a float16 file."""
    narrow = values.to(torch.float16)
    return narrow if narrow.to(values.dtype).equal(values) else values


def _adapter(site: SiteOps) -> BottleneckWeights | None:
    adapter = site.adapter
    if adapter is None:
        return None
    return BottleneckWeights(
        down_weight=_narrowed(_tensor(adapter.down_weight)),
        down_bias=_tensor(adapter.down_bias),
        up_weight=_narrowed(_tensor(adapter.up_weight)),
        up_bias=_tensor(adapter.up_bias),
        activation=adapter.activation,
    )


def _norm(deltas: SiteOps, shared: NormWeights) -> NormWeights:
    weight, bias = shared
    if deltas.norm_weight is not None:
        weight = weight + _tensor(deltas.norm_weight)
    if deltas.norm_bias is not None:
        bias = bias + _tensor(deltas.norm_bias)
    return NormWeights(weight, bias)


def _tensor(array: NDArray[np.float32]) -> torch.Tensor:
    """Copy: the arrays may be views of a read-only file."""
    return torch.from_numpy(np.array(array, dtype=np.float32))


def _tensors(part: object) -> Iterator[torch.Tensor]:
    """Yield the tensors within a dataclass or tuple of weights."""
    if isinstance(part, torch.Tensor):
        yield part
    elif is_dataclass(part):
        for field in fields(part):
            yield from _tensors(getattr(part, field.name))
    elif isinstance(part, tuple):
        for item in part:
            yield from _tensors(item)
