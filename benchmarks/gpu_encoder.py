"""One encoder for many tasks without grouped operators: a loop over tasks, and merged models.

What `bench_gpu.py` compares `grouped_encoder.py` with. Weights are random; every way computes the
same function, which `tests/benchmarks/test_gpu_encoder.py` holds them to on the CPU. A layer's
parts and the places of the tasks' operators are those of `workers/encoder.py`.
"""

from collections.abc import Callable, Mapping, Sequence
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
BERT_LARGE = Shape(num_layers=24, hidden=1024, num_heads=16, intermediate=4096)


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
