"""One pass of a packed batch over the backbone, with each task's ops at their places.

A layer (BERT: Devlin et al. 2019; the places of the ops: PetS, section 4; of the other families,
gelu and the bias of attention scores are their own):

    qkv = product(h)                               + task ops
    out = product(attention(prefix_t, qkv))        + task ops, adapter
    h   = LayerNorm_t(h + out)
    out = product(gelu(product(h) + task ops))     + task ops, adapter
    h   = LayerNorm_t(h + out)

where product is one shared matrix product over all rows of all tasks. Reads shared state only,
so several threads may run passes at once; each pass computes on one thread.

An encoder computes in one type. In bfloat16 that is the type of the products and of the states
between them; what a pass begins with (embeddings) and ends with is float32, as are parameters of
LayerNorms, gates, and weights that are patched before they are rounded.
"""

from collections.abc import Sequence
from functools import cache
from itertools import accumulate

import torch
from torch.nn import functional as F

from gpu_ops.bias import add_bias_
from gpu_ops.bottleneck import add_bottleneck_
from gpu_ops.compiled.library import load
from gpu_ops.layer_norm import NormWeights
from gpu_ops.low_rank import add_low_rank_
from gpu_ops.row_gate import row_gates
from gpu_ops.scale import scale_
from gpu_ops.spans import Span
from gpu_ops.sparse_delta import SparseWeights, changed_values
from gpu_ops.sublayer_adapter import run_sublayer_adapter
from gpu_ops.task_products import TaskProducts
from gpu_ops.varlen_attention import PrefixStates
from tasks.backbone_shape import NormSite
from workers.backbone import PRODUCTS, SITES_OF, Backbone, Product
from workers.expanded_weights import ExpandedWeights
from workers.linear_backends import Linear, LinearChoice, choose
from workers.machine_figures import MachineFigures
from workers.merged_weights import MergedWeights
from workers.operator_choice import faster_ones
from workers.operators import operators
from workers.packed_batch import ROUND_TOKENS_TO, PackedBatch
from workers.patched_copy import PatchedCopy
from workers.precision import Precision
from workers.relative_attention import RelativeBias
from workers.sparse_policy import BreakEvens, SharedProduct, SparsePolicy
from workers.task_ops import ProductOps
from workers.task_products import bottleneck_products, low_rank_products
from workers.torch_dtypes import TORCH_DTYPES

NORM_BEHIND: dict[Product, NormSite] = {
    "attention_output": "attention_norm",
    "ffn_output": "ffn_norm",
}
WARM_UP_TOKENS = 256
"""A lone query, or a few short ones."""
Active = Sequence[tuple[Span, ProductOps]]
"""The tasks of a batch that have ops at the product at hand, with their tokens; ascending."""


class Encoder:
    """The backbone with the back ends that are fastest on this machine."""

    def __init__(
        self,
        backbone: Backbone,
        precision: Precision,
        figures: MachineFigures,
        merged: MergedWeights,
    ) -> None:
        """Choose the back ends.

        Args:
            backbone: The shared weights.
            precision: What to compute in.
            figures: Those of this machine; what is not among them is measured.
            merged: Keeps the weights of the sparse changes that are used most.
        """
        self.backbone = backbone
        self._dtype = dtype = TORCH_DTYPES[precision]
        self.choices: dict[Product, LinearChoice] = {}
        for product in PRODUCTS:
            weights = backbone.products[0, product]
            converted = weights.weight.to(dtype), weights.bias.to(dtype)
            self.choices[product] = choose(*converted, figures)
        self._linears: dict[tuple[int, Product], Linear] = {}
        self._biases: dict[tuple[int, Product], torch.Tensor] = {}
        for place, weights in backbone.products.items():
            bias = self._biases[place] = weights.bias.to(dtype)
            choice = self.choices[place[1]]
            self._linears[place] = choice.shared_linear(weights.weight.to(dtype), bias)
        self._expanded = ExpandedWeights(dtype)
        library = load()
        compiled = faster_ones(backbone, dtype, library, figures)
        self.operators = operators(backbone, self._expanded.values, library, compiled)
        table = backbone.relative_attention
        self._relative_bias = (
            None if table is None else RelativeBias(table, backbone.shape.max_positions)
        )
        self._sparse_policy = SparsePolicy(
            (
                SharedProduct(
                    backbone.products[0, product],
                    self._biases[0, product],
                    self._linears[0, product],
                    self.choices[product].unpacked_linear,
                    self.choices[product].us_per_row[self.choices[product].shared],
                )
                for product in PRODUCTS
            ),
            operators(backbone, cache(changed_values), library, compiled),
            figures,
        )
        self._merged = merged
        self.low_rank_products: dict[Product, TaskProducts] = {
            product: low_rank_products(
                backbone.products[0, product].weight.to(dtype),
                len(SITES_OF[product]),
                self.choices[product].unpacked_linear,
                figures,
            )
            for product in PRODUCTS
        }
        self.adapter_products = bottleneck_products(
            backbone.shape.hidden_size,
            dtype,
            self.choices["attention_output"].unpacked_linear,
            figures,
        )

    @property
    def us_per_row(self) -> float:
        """CPU time of one layer's shared products, microseconds a row, as measured."""
        return sum(choice.us_per_row[choice.shared] for choice in self.choices.values())

    def warm_up(self) -> None:
        """Let oneDNN build its kernels of few rows, each of which takes as long as their product.

        A kernel belongs to a number of rows; batches are padded to multiples of `ROUND_TOKENS_TO`.
        With more rows than these the product takes ten times as long as building it.
        """
        for product, choice in self.choices.items():
            if choice.shared == "torch":
                continue
            num_in = self.backbone.products[0, product].weight.shape[1]
            for rows in range(ROUND_TOKENS_TO, WARM_UP_TOKENS + 1, ROUND_TOKENS_TO):
                self._linears[0, product](torch.zeros(rows, num_in, dtype=self._dtype))

    def break_evens(self, layer: int, product: Product, delta: SparseWeights) -> BreakEvens:
        """Return from how many rows on a sparse change is better in a copy of the weight."""
        shape = self.backbone.products[layer, product].weight.shape
        return self._sparse_policy.break_evens(delta, shape)

    def encode(self, batch: PackedBatch) -> torch.Tensor:
        """Return the last layer's hidden states, shape (num_tokens, hidden), float32."""
        hidden = self._embed(batch).to(self._dtype)
        for layer in range(self.backbone.shape.num_layers):
            hidden = self._layer(layer, hidden, batch)
        return hidden.float()

    def _embed(self, batch: PackedBatch) -> torch.Tensor:
        tables = self.backbone.embeddings
        embedded = F.embedding(batch.token_ids, tables.words)
        own_norms: list[tuple[Span, NormWeights]] = []
        behind_norm: list[tuple[torch.Tensor, torch.Tensor]] = []
        for segment in batch.segments:
            ops = segment.task.ops.embeddings
            if ops is None:
                continue
            tokens = slice(*segment.tokens)
            ops.change(batch.token_ids[tokens], batch.places[tokens], embedded[tokens])
            if ops.norm is not None:
                own_norms.append((segment.tokens, self._expanded.norm(ops.norm, tables.norm)))
            if ops.prompt is not None and segment.virtual_tokens is not None:
                vectors = ops.prompt.vectors.to(embedded.dtype)
                if ops.prompt.enters == "words":
                    embedded[segment.virtual_tokens] = vectors
                else:
                    behind_norm.append((segment.virtual_tokens, vectors))
        hidden = self.operators.add_layer_norm(
            embedded,
            F.embedding(batch.places, tables.places),
            tables.norm,
            self.backbone.layer_norm_eps,
            [span for span, _ in own_norms],
            [norm for _, norm in own_norms],
        )
        if tables.projection is not None:
            hidden = F.linear(hidden, tables.projection.weight, tables.projection.bias)
        for virtual_tokens, vectors in behind_norm:
            hidden[virtual_tokens] = vectors
        return hidden

    def _layer(self, layer: int, hidden: torch.Tensor, batch: PackedBatch) -> torch.Tensor:
        qkv = self._product(layer, "qkv", hidden, batch)
        prefixes = self._prefixes(layer, hidden, batch)
        bias = None
        if self._relative_bias is not None:
            bias = self._relative_bias.up_to(max(batch.row_lens))
        attended = self.operators.attention(
            qkv, self.backbone.shape.num_heads, batch.row_lens, bias, prefixes
        )
        output = self._product(layer, "attention_output", attended, batch)
        hidden = self._end_sublayer(layer, "attention_output", output, hidden, batch)
        inner = self._product(layer, "ffn_input", hidden, batch)
        self.operators.activate_(inner)
        output = self._product(layer, "ffn_output", inner, batch)
        return self._end_sublayer(layer, "ffn_output", output, hidden, batch)

    def _prefixes(
        self, layer: int, hidden: torch.Tensor, batch: PackedBatch
    ) -> dict[int, PrefixStates]:
        """Return what each row sees before its own keys and values, by the row's number."""
        prefixes: dict[int, PrefixStates] = {}
        for segment in batch.segments:
            ops = segment.task.ops.prefixes.get(layer)
            if ops is None:
                continue
            states = self._expanded.prefix(ops)
            if ops.gate is None:
                prefixes |= dict.fromkeys(range(*segment.rows), states)
                continue
            gates = row_gates(hidden[slice(*segment.tokens)], segment.row_lens, ops.gate)
            firsts = accumulate(segment.row_lens[:-1], initial=0)
            for row, first in zip(range(*segment.rows), firsts, strict=True):
                keys, values = states
                prefixes[row] = PrefixStates(keys * gates[first], values * gates[first])
        return prefixes

    def _product(
        self, layer: int, product: Product, x: torch.Tensor, batch: PackedBatch
    ) -> torch.Tensor:
        """Multiply all rows by the shared weight and run the tasks' ops; may change `x`."""
        segments = [
            (segment, ops)
            for segment in batch.segments
            if (ops := segment.task.ops.products.get((layer, product))) is not None
        ]
        if not segments:
            return self._linears[layer, product](x)
        active = [(segment.tokens, ops) for segment, ops in segments]
        vector = self._expanded.vector
        scaled = [
            (span, vector(ops.input_scale)) for span, ops in active if ops.input_scale is not None
        ]
        if scaled and product in ("qkv", "ffn_input"):
            x = x.clone()  # the residual reads it too
        scale_(x, [span for span, _ in scaled], [scale for _, scale in scaled])
        y = self._shared_and_changed(layer, product, x, active)
        low_rank = [(part, ops.low_rank) for part, ops in segments if ops.low_rank is not None]
        add_low_rank_(
            y,
            x,
            [segment.tokens for segment, _ in low_rank],
            [self._expanded.low_rank(factors) for _, factors in low_rank],
            self.low_rank_products[product],
            [segment.row_lens for segment, _ in low_rank],
        )
        scales = [
            (span, vector(ops.output_scale)) for span, ops in active if ops.output_scale is not None
        ]
        scale_(y, [span for span, _ in scales], [scale for _, scale in scales])
        biases = [(span, vector(ops.bias)) for span, ops in active if ops.bias is not None]
        add_bias_(y, [span for span, _ in biases], [bias for _, bias in biases])
        adapters = [(span, ops.adapter) for span, ops in active if ops.adapter is not None]
        add_bottleneck_(
            y,
            [span for span, _ in adapters],
            [self._expanded.adapter(adapter) for _, adapter in adapters],
            self.adapter_products,
        )
        return y

    def _shared_and_changed(
        self, layer: int, product: Product, x: torch.Tensor, active: Active
    ) -> torch.Tensor:
        """Multiply, with changes of the weight beside the shared product or in a copy of it."""
        changed: list[tuple[Span, Linear]] = []
        beside: list[tuple[Span, SparseWeights]] = []
        copy = self._copy(layer, product)
        for span, ops in active:
            linear = self._changed_linear(layer, product, span.num_rows, ops, copy)
            if linear is not None:
                changed.append((span, linear))
            elif ops.sparse is not None:
                beside.append((span, ops.sparse.weights))
        y = self._by_spans(self._linears[layer, product], x, changed)
        self.operators.add_sparse_delta_(
            y,
            x,
            [span for span, _ in beside],
            [delta for _, delta in beside],
            self.backbone.products[layer, product].weight,
        )
        return y

    def _copy(self, layer: int, product: Product) -> PatchedCopy:
        weight = self.backbone.products[layer, product].weight
        return PatchedCopy(weight, self.operators.patch_weight)

    def _changed_linear(
        self, layer: int, product: Product, num_rows: int, ops: ProductOps, copy: PatchedCopy
    ) -> Linear | None:
        """Return the product with a task's own weight, or None if it has none or needs none.

        What it returns is called once, before another task's.
        """
        choice, bias = self.choices[product], self._biases[layer, product]
        if ops.sparse is not None and ops.dense is None:
            if num_rows >= ops.sparse.keep_from_rows:
                kept = self._merged.product_of(
                    ops.sparse,
                    self.backbone.products[layer, product].weight.numel() * self._dtype.itemsize,
                    lambda: choice.shared_linear(
                        self._copy(layer, product).with_changes(ops).to(self._dtype), bias
                    ),
                )
                if kept is not None:
                    return kept
            if num_rows < ops.sparse.patch_from_rows:
                return None
        elif ops.dense is None:
            return None
        multiply = choice.unpacked_linear.op
        return lambda x: multiply(x, copy.with_changes(ops).to(self._dtype), bias)

    @staticmethod
    def _by_spans(
        linear: Linear, x: torch.Tensor, changed: Sequence[tuple[Span, Linear]]
    ) -> torch.Tensor:
        """Multiply the given spans by weights of their own, the rest by the shared one."""
        if not changed:
            return linear(x)
        parts: list[torch.Tensor] = []
        done = 0
        for (start, end), own in changed:
            if start > done:
                parts.append(linear(x[done:start]))
            parts.append(own(x[start:end]))
            done = end
        if done < len(x):
            parts.append(linear(x[done:]))
        return torch.cat(parts)

    def _end_sublayer(
        self,
        layer: int,
        product: Product,
        output: torch.Tensor,
        residual: torch.Tensor,
        batch: PackedBatch,
    ) -> torch.Tensor:
        """Add the residual and normalise, or let the task's adapter do so; may change `output`."""
        site = NORM_BEHIND[product]
        shared, eps = self.backbone.norms[layer, site], self.backbone.layer_norm_eps
        own: list[tuple[Span, NormWeights]] = []
        adapted: list[tuple[Span, torch.Tensor]] = []
        for segment in batch.segments:
            task, tokens = segment.task.ops, slice(*segment.tokens)
            deltas = task.norms.get((layer, site))
            norm = shared
            if deltas is not None:
                norm = self._expanded.norm(deltas, shared)
                own.append((segment.tokens, norm))
            ops = task.products.get((layer, product))
            if ops is not None and ops.sublayer_adapter is not None:
                result = run_sublayer_adapter(
                    output[tokens],
                    residual[tokens],
                    norm,
                    eps,
                    ops.sublayer_adapter,
                    self._expanded.adapter(ops.sublayer_adapter.projections),
                    segment.row_lens,
                )
                adapted.append((segment.tokens, result))
        hidden = self.operators.add_layer_norm(
            output,
            residual,
            shared,
            eps,
            [span for span, _ in own],
            [norm for _, norm in own],
        )
        for (start, end), result in adapted:
            hidden[start:end] = result
        return hidden
