"""One encoder for many tasks in three ways: grouped operators, a loop over tasks, merged models.

What `bench_gpu.py` compares. Weights are random; every way computes the same function, which
`tests/benchmarks/test_gpu_encoder.py` holds them to on the CPU. A layer's parts and the places of
the tasks' operators are those of `workers/encoder.py`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Literal, NamedTuple, Protocol

import torch
from torch.nn import functional as F

import gpu_ops.bottleneck
import gpu_ops.layer_norm
import gpu_ops.low_rank
import gpu_ops.sparse_delta
from gpu_ops.bias import add_bias_
from gpu_ops.bottleneck import BottleneckWeights
from gpu_ops.grouped.bias_gelu import RowVectors, bias_gelu_
from gpu_ops.grouped.bottleneck import BottleneckPool, add_bottleneck_
from gpu_ops.grouped.layer_norm import NormPool, add_layer_norm
from gpu_ops.grouped.low_rank import LowRankPool, add_low_rank_
from gpu_ops.grouped.masked_product import masked_product_, pack_mask
from gpu_ops.grouped.segments import Segment, TileTable, row_slots, tile_entries
from gpu_ops.grouped.sparse_delta import DELTA_ROWS, SparsePool, add_sparse_delta_, sparse_pool
from gpu_ops.layer_norm import NormWeights
from gpu_ops.low_rank import LowRankFactors, UpFactor
from gpu_ops.spans import Span
from gpu_ops.sparse_delta import SparseWeights, changed_values, patch_weight, sparse_weights
from gpu_ops.varlen_attention import varlen_attention

Kind = Literal["lora", "bitfit", "adapter", "diff", "mask"]
Product = Literal["qkv", "attention_output", "ffn_input", "ffn_output"]
PRODUCTS: tuple[Product, ...] = ("qkv", "attention_output", "ffn_input", "ffn_output")
NORMED: tuple[Product, ...] = ("attention_output", "ffn_output")
"""Followed by residual and LayerNorm, and by an adapter before them."""
RANK = 8
BOTTLENECK = 64
DENSITY: Mapping[str, float] = {"diff": 0.005, "mask": 0.05}
"""Share of the weights that a task changes, or drops (PetS, section 6.1)."""
EPS = 1e-12
MANY_ROWS = 32
"""Tokens of a task from which on large tiles are used."""
FEW_ROWS = 4
"""Rows of a task up to which low-rank products go by rows."""


class Shape(NamedTuple):
    """Of a backbone."""

    num_layers: int
    hidden: int
    num_heads: int
    intermediate: int

    def sizes(self, product: Product) -> tuple[int, int]:
        """Return (out, in) of a product."""
        return {
            "qkv": (3 * self.hidden, self.hidden),
            "attention_output": (self.hidden, self.hidden),
            "ffn_input": (self.intermediate, self.hidden),
            "ffn_output": (self.hidden, self.intermediate),
        }[product]


BERT_BASE = Shape(num_layers=12, hidden=768, num_heads=12, intermediate=3072)


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """One layer of the backbone."""

    weights: Mapping[Product, torch.Tensor]
    biases: Mapping[Product, torch.Tensor]
    norms: Mapping[Product, NormWeights]


@dataclass(frozen=True, slots=True, eq=False)
class TaskLayer:
    """What one task changes in one layer."""

    low_rank: LowRankFactors | None = None
    """At qkv."""
    biases: Mapping[Product, torch.Tensor] = field(default_factory=dict)
    """Added to the shared ones."""
    norms: Mapping[Product, NormWeights] = field(default_factory=dict)
    adapters: Mapping[Product, BottleneckWeights] = field(default_factory=dict)
    sparse: Mapping[Product, SparseWeights] = field(default_factory=dict)

    def num_bytes(self) -> int:
        """Return what it takes on the device, a mask at two bytes to a dropped weight."""
        tensors = [*self.biases.values(), *(part for norm in self.norms.values() for part in norm)]
        if self.low_rank is not None:
            tensors += [self.low_rank.down, *(up.weight for up in self.low_rank.ups)]
        for a in self.adapters.values():
            tensors += [a.down_weight, a.down_bias, a.up_weight, a.up_bias]
        for delta in self.sparse.values():
            tensors += [delta.columns, delta.row_offsets]
            tensors += [] if delta.values is None else [delta.values]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


class Draw:
    """Random weights on a device."""

    def __init__(self, shape: Shape, device: str, dtype: torch.dtype, seed: int = 0) -> None:
        self.shape = shape
        self.dtype = dtype
        self._generator = torch.Generator(device).manual_seed(seed)

    def normal(self, *size: int, scale: float = 0.02, shift: float = 0.0) -> torch.Tensor:
        """Return a tensor of normal values."""
        g = self._generator
        values = torch.randn(*size, generator=g, device=g.device)
        return (values * scale + shift).to(self.dtype)

    def layer(self) -> Layer:
        """Return a layer of the backbone."""
        sizes = {product: self.shape.sizes(product) for product in PRODUCTS}
        return Layer(
            {product: self.normal(out, width) for product, (out, width) in sizes.items()},
            {product: self.normal(out) for product, (out, _) in sizes.items()},
            {product: self._norm() for product in NORMED},
        )

    def task_layer(self, kind: Kind) -> TaskLayer:
        """Return what a task of this kind changes in a layer."""
        hidden = self.shape.hidden
        if kind == "lora":
            ups = tuple(UpFactor(RANK * b, hidden * b, self.normal(hidden, RANK)) for b in range(3))
            return TaskLayer(low_rank=LowRankFactors(self.normal(3 * RANK, hidden), ups))
        if kind == "adapter":
            return TaskLayer(adapters={product: self._adapter() for product in NORMED})
        has_sparse = kind in DENSITY
        sparse = {product: self.sparse(product, kind) for product in PRODUCTS if has_sparse}
        if kind == "mask":
            return TaskLayer(sparse=sparse)
        return TaskLayer(
            biases={product: self.normal(self.shape.sizes(product)[0]) for product in PRODUCTS},
            norms={product: self._norm() for product in NORMED},
            sparse=sparse,
        )

    def _norm(self) -> NormWeights:
        hidden = self.shape.hidden
        return NormWeights(self.normal(hidden, shift=1.0), self.normal(hidden))

    def _adapter(self) -> BottleneckWeights:
        hidden = self.shape.hidden
        return BottleneckWeights(
            self.normal(BOTTLENECK, hidden),
            self.normal(BOTTLENECK),
            self.normal(hidden, BOTTLENECK),
            self.normal(hidden),
            "gelu",
        )

    def sparse(self, product: Product, kind: Kind) -> SparseWeights:
        """Return the changes of one weight."""
        out, width = self.shape.sizes(product)
        g = self._generator
        hits = torch.rand(out * width, generator=g, device=g.device) < DENSITY[kind]
        flat = hits.nonzero().view(-1).int()
        values = None if kind == "mask" else self.normal(len(flat))
        return sparse_weights(flat, values, (out, width))


class Ops(Protocol):
    """One way to run the products of a layer."""

    def product(self, layer: int, product: Product, x: torch.Tensor) -> torch.Tensor:
        """Return x W + b with the tasks' operators; with GELU behind `ffn_input`."""

    def norm(
        self, layer: int, product: Product, x: torch.Tensor, residual: torch.Tensor
    ) -> torch.Tensor:
        """Return the LayerNorm that follows a product."""


Attention = Callable[[torch.Tensor], torch.Tensor]
"""From queries, keys and values side by side to what was attended to."""


def encode(hidden: torch.Tensor, num_layers: int, ops: Ops, attention: Attention) -> torch.Tensor:
    """Run all layers; `hidden` is [num_tokens, hidden]."""
    for layer in range(num_layers):
        attended = attention(ops.product(layer, "qkv", hidden))
        output = ops.product(layer, "attention_output", attended)
        hidden = ops.norm(layer, "attention_output", output, hidden)
        output = ops.product(layer, "ffn_output", ops.product(layer, "ffn_input", hidden))
        hidden = ops.norm(layer, "ffn_output", output, hidden)
    return hidden


def packed_attention(row_lens: Sequence[int], num_heads: int, device: str) -> Attention:
    """Return attention over packed rows: torch's variable-length kernel where there is a device."""
    if device == "cpu":
        return lambda qkv: varlen_attention(qkv, num_heads, row_lens)
    from torch.nn.attention.varlen import varlen_attn

    ends = [0, *accumulate(row_lens)]
    offsets = torch.tensor(ends, dtype=torch.int32, device=device)
    longest = max(row_lens)

    def attend(qkv: torch.Tensor) -> torch.Tensor:
        query, key, value = qkv.view(len(qkv), 3, num_heads, -1).unbind(1)
        attended = varlen_attn(query, key, value, offsets, offsets, longest, longest)
        assert isinstance(attended, torch.Tensor)
        return attended.flatten(1)

    return attend


def equal_rows_attention(num_rows: int, num_heads: int) -> Attention:
    """Return attention over so many rows of equal length, which need neither padding nor a mask."""

    def attend(qkv: torch.Tensor) -> torch.Tensor:
        query, key, value = qkv.view(
            num_rows, -1, 3, num_heads, qkv.shape[1] // 3 // num_heads
        ).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value)
        return attended.transpose(1, 2).reshape(len(qkv), -1)

    return attend


class Task(NamedTuple):
    """A task and its rows in the batch."""

    kind: Kind
    layers: Sequence[TaskLayer]
    tokens: Span


class MergedOps:
    """One task's model with everything merged that can be: what is served task by task."""

    def __init__(self, backbone: Sequence[Layer], task: Task) -> None:
        self._layers = [
            _merged(shared, own) for shared, own in zip(backbone, task.layers, strict=True)
        ]
        self._adapters = [own.adapters for own in task.layers]

    def product(self, layer: int, product: Product, x: torch.Tensor) -> torch.Tensor:
        """Run the merged product."""
        merged = self._layers[layer]
        y = F.linear(x, merged.weights[product], merged.biases[product])
        if product == "ffn_input":
            return F.gelu(y)
        adapter = self._adapters[layer].get(product)
        if adapter is not None:
            inner = F.gelu(F.linear(y, adapter.down_weight, adapter.down_bias))
            y = y + F.linear(inner, adapter.up_weight, adapter.up_bias)
        return y

    def norm(
        self, layer: int, product: Product, x: torch.Tensor, residual: torch.Tensor
    ) -> torch.Tensor:
        """Run torch's LayerNorm."""
        weight, bias = self._layers[layer].norms[product]
        return F.layer_norm(x + residual, x.shape[1:], weight, bias, EPS)


def _merged(shared: Layer, own: TaskLayer) -> Layer:
    weights = dict(shared.weights)
    for product, delta in own.sparse.items():
        weight = shared.weights[product]
        weights[product] = patch_weight(weight, delta, torch.empty_like(weight))
    if own.low_rank is not None:
        weight = weights["qkv"].clone()
        for first_rank, first_output, up, _ in own.low_rank.ups:
            down = own.low_rank.down[first_rank : first_rank + up.shape[1]]
            weight[first_output : first_output + len(up)] += up @ down
        weights["qkv"] = weight
    biases = {
        product: bias + own.biases[product] if product in own.biases else bias
        for product, bias in shared.biases.items()
    }
    return Layer(weights, biases, {**shared.norms, **own.norms})


class LoopOps:
    """The shared product for all rows, then torch's operators task by task."""

    def __init__(self, backbone: Sequence[Layer], tasks: Sequence[Task]) -> None:
        self._backbone = backbone
        self._tasks = tasks
        self._values = {
            id(delta): changed_values(delta, shared.weights[product])
            for number, shared in enumerate(backbone)
            for task in tasks
            for product, delta in task.layers[number].sparse.items()
        }

    def product(self, layer: int, product: Product, x: torch.Tensor) -> torch.Tensor:
        """Run the shared product and the loops."""
        shared = self._backbone[layer]
        y = F.linear(x, shared.weights[product], shared.biases[product])
        own = [(task.tokens, task.layers[layer]) for task in self._tasks]
        if product == "qkv":
            factors = [(span, of.low_rank) for span, of in own if of.low_rank is not None]
            gpu_ops.low_rank.add_low_rank_(
                y, x, [span for span, _ in factors], [low_rank for _, low_rank in factors]
            )
        deltas = [(span, of.sparse[product]) for span, of in own if product in of.sparse]
        gpu_ops.sparse_delta.add_sparse_delta_(
            y,
            x,
            [span for span, _ in deltas],
            [delta for _, delta in deltas],
            [self._values[id(delta)] for _, delta in deltas],
        )
        biases = [(span, of.biases[product]) for span, of in own if product in of.biases]
        add_bias_(y, [span for span, _ in biases], [bias for _, bias in biases])
        adapters = [(span, of.adapters[product]) for span, of in own if product in of.adapters]
        gpu_ops.bottleneck.add_bottleneck_(
            y, [span for span, _ in adapters], [adapter for _, adapter in adapters]
        )
        return F.gelu(y) if product == "ffn_input" else y

    def norm(
        self, layer: int, product: Product, x: torch.Tensor, residual: torch.Tensor
    ) -> torch.Tensor:
        """Run torch's LayerNorm for each task that has its own."""
        own = [
            (task.tokens, task.layers[layer].norms[product])
            for task in self._tasks
            if product in task.layers[layer].norms
        ]
        return gpu_ops.layer_norm.add_layer_norm(
            x,
            residual,
            self._backbone[layer].norms[product],
            EPS,
            [span for span, _ in own],
            [norm for _, norm in own],
        )


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """The pools at one product of one layer."""

    biases: torch.Tensor
    norms: torch.Tensor | None
    shared_norm: torch.Tensor | None
    low_rank: LowRankPool | None
    sparse: SparsePool | None
    kept: torch.Tensor | None
    adapters: BottleneckPool | None


class GroupedOps:
    """The shared product for all rows, then one launch of each operator for all tasks.

    On two streams, sparse operators and masks, which wait for memory, run beside low ranks and
    adapters, which multiply: PetS's rule (section 5.3) of dealing operators out by intensity.
    """

    def __init__(
        self,
        backbone: Sequence[Layer],
        tasks: Sequence[Task],
        num_tokens: int,
        mask_as: Literal["bits", "sparse"] = "sparse",
        num_streams: Literal[1, 2] = 1,
    ) -> None:
        self._backbone = backbone
        self._side: torch.cuda.Stream | None = None
        if num_streams == 2:
            self._side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._device = backbone[0].weights["qkv"].device
        self._num_tokens = num_tokens
        self._rows = max((task.tokens.num_rows for task in tasks), default=1)
        has_bits = mask_as == "bits"
        by_use = {
            "bias": [task for task in tasks if task.kind in ("bitfit", "diff")],
            "low_rank": [task for task in tasks if task.kind == "lora"],
            "adapter": [task for task in tasks if task.kind == "adapter"],
            "mask": [task for task in tasks if task.kind == "mask" and has_bits],
            "sparse": [
                task
                for task in tasks
                if task.kind == "diff" or (task.kind == "mask" and not has_bits)
            ],
        }
        tile_rows = 64 if self._rows >= MANY_ROWS else 16
        self._row_slots = self._slots(by_use["bias"])
        self._low_rank_groups = (
            self._slots(by_use["low_rank"])
            if self._rows <= FEW_ROWS
            else self._tiles(by_use["low_rank"], tile_rows)
        )
        self._adapter_tiles = self._tiles(by_use["adapter"], tile_rows)
        self._mask_tiles = self._tiles(by_use["mask"], tile_rows)
        self._sparse_tiles = self._tiles(by_use["sparse"], DELTA_ROWS)
        self._all_masked = len(by_use["mask"]) == len(tasks) > 0
        self._places = [
            {product: self._place(number, product, by_use) for product in PRODUCTS}
            for number in range(len(backbone))
        ]

    def product(self, layer: int, product: Product, x: torch.Tensor) -> torch.Tensor:
        """Run the shared product and the grouped operators; a normed product's bias comes later."""
        place, shared = self._places[layer][product], self._backbone[layer]
        weight = shared.weights[product]
        y = x.new_empty(len(x), len(weight)) if self._all_masked else F.linear(x, weight)
        with self._beside_dense_ops():
            if place.kept is not None:
                masked_product_(y, x, weight, place.kept, self._mask_tiles)
            if place.sparse is not None:
                add_sparse_delta_(y, x, weight, place.sparse, self._sparse_tiles)
        if place.low_rank is not None:
            add_low_rank_(y, x, place.low_rank, self._low_rank_groups)
        if place.adapters is not None:
            add_bottleneck_(y, place.adapters, self._adapter_tiles)
        if self._side is not None:
            torch.cuda.current_stream().wait_stream(self._side)
        if product not in NORMED:
            biases = RowVectors(place.biases, self._row_slots)
            bias_gelu_(y, shared.biases[product], biases, gelu=product == "ffn_input")
        return y

    def norm(
        self, layer: int, product: Product, x: torch.Tensor, residual: torch.Tensor
    ) -> torch.Tensor:
        """Run bias, residual and LayerNorm at once."""
        place = self._places[layer][product]
        assert place.norms is not None
        assert place.shared_norm is not None
        pool = NormPool(place.shared_norm, place.norms, self._row_slots)
        return add_layer_norm(x, residual, pool, EPS)

    @contextmanager
    def _beside_dense_ops(self) -> Iterator[None]:
        """Run what is inside on the other stream: kinds differ in their rows and do not meet."""
        if self._side is None:
            yield
            return
        self._side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._side):
            yield

    def _segments(self, tasks: Sequence[Task]) -> list[Segment]:
        return [Segment(task.tokens, slot) for slot, task in enumerate(tasks)]

    def _slots(self, tasks: Sequence[Task]) -> torch.Tensor:
        return row_slots(self._segments(tasks), self._num_tokens).to(self._device)

    def _tiles(self, tasks: Sequence[Task], tile_rows: int) -> TileTable:
        segments = self._segments(tasks)
        capacity = sum(-(-task.tokens.num_rows // tile_rows) for task in tasks)
        return TileTable(tile_entries(segments, tile_rows, capacity).to(self._device), tile_rows)

    def _place(self, number: int, product: Product, by_use: Mapping[str, Sequence[Task]]) -> Place:
        shared = self._backbone[number]
        bias = shared.biases[product]
        own = {use: [task.layers[number] for task in tasks] for use, tasks in by_use.items()}
        biases = torch.stack([bias, *(bias + of.biases[product] for of in own["bias"])])[1:]
        norms = shared_norm = None
        if product in NORMED:
            gamma, beta = shared.norms[product]
            shared_norm = torch.stack([bias, gamma, beta])
            rows = [
                torch.stack([bias + of.biases[product], *of.norms[product]]) for of in own["bias"]
            ]
            norms = torch.stack([shared_norm, *rows])[1:].contiguous()
        factors = [of.low_rank for of in own["low_rank"] if of.low_rank is not None]
        deltas = [of.sparse[product] for of in own["sparse"]]
        drops = [of.sparse[product] for of in own["mask"]]
        adapters = [of.adapters[product] for of in own["adapter"] if product in of.adapters]
        return Place(
            biases.contiguous(),
            norms,
            shared_norm,
            low_rank_pool(factors) if factors and product == "qkv" else None,
            sparse_pool(deltas, bias.dtype) if deltas else None,
            _kept(drops, shared.weights[product]) if drops else None,
            adapter_pool(adapters, bias) if adapters else None,
        )


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


def bare_ops(backbone: Sequence[Layer], num_tokens: int) -> GroupedOps:
    """Return the same without any task's operators: what sharing a backbone costs at least."""
    return GroupedOps(backbone, [], num_tokens)
