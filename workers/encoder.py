"""One pass of a packed batch over the backbone, with each task's ops at their places.

A layer (BERT: Devlin et al. 2019; the places of the ops: PetS, section 4):

    qkv = product(h)                               + task ops
    out = product(attention(qkv))                  + task ops, adapter
    h   = LayerNorm_t(h + out)
    out = product(gelu(product(h) + task ops))     + task ops, adapter
    h   = LayerNorm_t(h + out)

where product is one shared matrix product over all rows of all tasks. Reads shared state only,
so several threads may run passes at once; each pass computes on one thread.
"""

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from gpu_ops.bias import add_bias_
from gpu_ops.bottleneck import add_bottleneck_
from gpu_ops.layer_norm import add_layer_norm
from gpu_ops.low_rank import add_low_rank_
from gpu_ops.scale import scale_
from gpu_ops.spans import Span
from gpu_ops.sparse_delta import SparseWeights, add_sparse_delta_, patch_weight
from gpu_ops.task_products import TaskProducts
from gpu_ops.varlen_attention import varlen_attention
from tasks.backbone_shape import NormSite
from workers.backbone import PRODUCTS, SITES_OF, Backbone, Product
from workers.dropped_values import DroppedValues
from workers.linear_backends import Linear, LinearChoice, choose, unpacked_op
from workers.packed_batch import PackedBatch
from workers.sparse_policy import SparsePolicy
from workers.task_ops import ProductOps
from workers.task_products import bottleneck_products, low_rank_products

Active = Sequence[tuple[Span, ProductOps]]
"""The tasks of a batch that have ops at the product at hand, with their tokens; ascending."""


class Encoder:
    """The backbone with the back ends that are fastest on this machine."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self.choices: dict[Product, LinearChoice] = {}
        for product in PRODUCTS:
            weights = backbone.products[0, product]
            self.choices[product] = choose(weights.weight, weights.bias)
        self._linears: dict[tuple[int, Product], Linear] = {
            (layer, product): self.choices[product].shared_linear(weights.weight, weights.bias)
            for (layer, product), weights in backbone.products.items()
        }
        self._sparse_policy = SparsePolicy()
        self._dropped_values = DroppedValues()
        self.low_rank_products: dict[Product, TaskProducts] = {}
        for product in PRODUCTS:
            num_out, num_in = backbone.products[0, product].weight.shape
            unpacked = unpacked_op(self.choices[product].unpacked)
            self.low_rank_products[product] = low_rank_products(
                num_in, num_out, len(SITES_OF[product]), unpacked
            )
        self.adapter_products = bottleneck_products(
            backbone.shape.hidden_size, unpacked_op(self.choices["attention_output"].unpacked)
        )

    def break_even_rows(self, layer: int, product: Product, delta: SparseWeights) -> int:
        """Return from how many rows on a sparse change is better patched into the weight."""
        return self._sparse_policy.break_even_rows(
            delta,
            self.backbone.products[layer, product],
            self._linears[layer, product],
            unpacked_op(self.choices[product].unpacked),
        )

    def encode(self, batch: PackedBatch) -> torch.Tensor:
        """Return the last layer's hidden states, shape (num_tokens, hidden)."""
        tables = self.backbone.embeddings
        embedded = F.embedding(batch.token_ids, tables.words)
        places = F.embedding(batch.places, tables.places)
        eps = self.backbone.layer_norm_eps
        hidden = add_layer_norm(embedded, places, tables.norm, eps, [], [])
        for layer in range(self.backbone.shape.num_layers):
            hidden = self._layer(layer, hidden, batch)
        return hidden

    def _layer(self, layer: int, hidden: torch.Tensor, batch: PackedBatch) -> torch.Tensor:
        qkv = self._product(layer, "qkv", hidden, batch)
        attended = varlen_attention(qkv, self.backbone.shape.num_heads, batch.row_lens)
        output = self._product(layer, "attention_output", attended, batch)
        hidden = self._norm(layer, "attention_norm", output, hidden, batch)
        inner = self._product(layer, "ffn_input", hidden, batch)
        torch.ops.aten.gelu_(inner)
        output = self._product(layer, "ffn_output", inner, batch)
        return self._norm(layer, "ffn_norm", output, hidden, batch)

    def _product(
        self, layer: int, product: Product, x: torch.Tensor, batch: PackedBatch
    ) -> torch.Tensor:
        """Multiply all rows by the shared weight and run the tasks' ops; may change `x`."""
        active = [
            (segment.tokens, ops)
            for segment in batch.segments
            if (ops := segment.task.ops.products.get((layer, product))) is not None
        ]
        if not active:
            return self._linears[layer, product](x)
        # An input scale stands at ffn_output only, whose input nobody else reads.
        scaled = [(span, ops.input_scale) for span, ops in active if ops.input_scale is not None]
        scale_(x, [span for span, _ in scaled], [scale for _, scale in scaled])
        y = self._shared_and_sparse(layer, product, x, active)
        low_rank = [(span, ops.low_rank) for span, ops in active if ops.low_rank is not None]
        add_low_rank_(
            y,
            x,
            [span for span, _ in low_rank],
            [factors for _, factors in low_rank],
            self.low_rank_products[product],
        )
        biases = [(span, ops.bias) for span, ops in active if ops.bias is not None]
        add_bias_(y, [span for span, _ in biases], [bias for _, bias in biases])
        scales = [(span, ops.output_scale) for span, ops in active if ops.output_scale is not None]
        scale_(y, [span for span, _ in scales], [scale for _, scale in scales])
        adapters = [(span, ops.adapter) for span, ops in active if ops.adapter is not None]
        add_bottleneck_(
            y,
            [span for span, _ in adapters],
            [adapter for _, adapter in adapters],
            self.adapter_products,
        )
        return y

    def _shared_and_sparse(
        self, layer: int, product: Product, x: torch.Tensor, active: Active
    ) -> torch.Tensor:
        """Multiply, with the sparse changes either beside the shared product or patched in."""
        sparse = [(span, ops.sparse) for span, ops in active if ops.sparse is not None]
        if not sparse:
            return self._linears[layer, product](x)
        patched: list[tuple[Span, SparseWeights]] = []
        beside: list[tuple[Span, SparseWeights]] = []
        for span, change in sparse:
            is_patched = span.num_rows >= change.patch_from_rows
            (patched if is_patched else beside).append((span, change.weights))
        y = self._with_patches(layer, product, x, patched)
        weight = self.backbone.products[layer, product].weight
        add_sparse_delta_(
            y,
            x,
            [span for span, _ in beside],
            [delta for _, delta in beside],
            [self._dropped_values.of(delta, weight) for _, delta in beside],
        )
        return y

    def _with_patches(
        self,
        layer: int,
        product: Product,
        x: torch.Tensor,
        patched: Sequence[tuple[Span, SparseWeights]],
    ) -> torch.Tensor:
        """Multiply the given spans by patched copies of the weight, the rest by the shared one."""
        linear = self._linears[layer, product]
        if not patched:
            return linear(x)
        shared = self.backbone.products[layer, product]
        multiply = unpacked_op(self.choices[product].unpacked)
        copy = torch.empty_like(shared.weight)
        parts: list[torch.Tensor] = []
        done = 0
        for (start, end), delta in patched:
            if start > done:
                parts.append(linear(x[done:start]))
            parts.append(
                multiply(x[start:end], patch_weight(shared.weight, delta, copy), shared.bias)
            )
            done = end
        if done < len(x):
            parts.append(linear(x[done:]))
        return torch.cat(parts)

    def _norm(
        self,
        layer: int,
        site: NormSite,
        x: torch.Tensor,
        residual: torch.Tensor,
        batch: PackedBatch,
    ) -> torch.Tensor:
        own = [
            (segment.tokens, norm)
            for segment in batch.segments
            if (norm := segment.task.ops.norms.get((layer, site))) is not None
        ]
        return add_layer_norm(
            x,
            residual,
            self.backbone.norms[layer, site],
            self.backbone.layer_norm_eps,
            [span for span, _ in own],
            [norm for _, norm in own],
        )
