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
from dataclasses import replace
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from gpu_ops.bias import add_bias_
from gpu_ops.bottleneck import BottleneckWeights, add_bottleneck_
from gpu_ops.compiled.library import load
from gpu_ops.layer_norm import NormWeights
from gpu_ops.low_rank import LowRankFactors, add_low_rank_
from gpu_ops.ragged_head import HeadWeights, ragged_head
from gpu_ops.scale import scale_
from gpu_ops.spans import Span
from gpu_ops.sparse_delta import changed_values
from gpu_ops.sublayer_adapter import run_sublayer_adapter
from gpu_ops.task_products import TaskProducts
from workers.backbone import NORM_BEHIND, PRODUCTS, SITES_OF, Backbone, Product
from workers.embed_tokens import embed_tokens
from workers.expanded_weights import ExpandedWeights
from workers.machine_figures import MachineFigures
from workers.merged_weights import MergedWeights
from workers.operator_choice import faster_ones
from workers.operators import operators
from workers.packed_batch import PackedBatch, Segment
from workers.precision import Precision
from workers.prefix_states import prefix_states
from workers.read_tokens import Encoded, read_tokens
from workers.relative_attention import RelativeBias
from workers.shared_products import SharedProducts
from workers.task_ops import ProductOps, SparseChange, TaskOps
from workers.task_products import bottleneck_products, low_rank_products
from workers.torch_dtypes import TORCH_DTYPES


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
        self._expanded = ExpandedWeights(dtype)
        library = load()
        compiled = faster_ones(backbone, dtype, library, figures)
        self.operators = operators(backbone, self._expanded.values, library, compiled)
        table = backbone.relative_attention
        self._relative_bias = (
            None if table is None else RelativeBias(table, backbone.shape.max_positions)
        )
        self.products = SharedProducts(
            backbone,
            dtype,
            operators(backbone, cache(changed_values), library, compiled),
            figures,
            merged,
            library,
        )
        self.low_rank_products: dict[Product, TaskProducts] = {
            product: low_rank_products(
                backbone.products[0, product].weight.to(dtype),
                len(SITES_OF[product]),
                self.products.choices[product].unpacked_linear,
                figures,
            )
            for product in PRODUCTS
        }
        self.adapter_products = bottleneck_products(
            backbone.shape.hidden_size,
            dtype,
            self.products.choices["attention_output"].unpacked_linear,
            figures,
        )

    @property
    def us_per_row(self) -> float:
        """CPU time of one layer's products, microseconds a row, as measured."""
        return self.products.us_per_row

    def warm_up(self) -> None:
        """Let what is built at first use be built now."""
        self.products.warm_up()

    def prepared(self, ops: TaskOps) -> TaskOps:
        """Return a task's ops with each sparse change told how it is best applied here."""
        products = dict(ops.products)
        for place, at_product in ops.products.items():
            if at_product.sparse is not None:
                weights = at_product.sparse.weights
                change = SparseChange(weights, *self.products.break_evens(place, weights))
                products[place] = replace(at_product, sparse=change)
        return replace(ops, products=products)

    def head(
        self, vectors: torch.Tensor, spans: Sequence[Span], heads: Sequence[HeadWeights]
    ) -> list[NDArray[np.float32]]:
        """Run the tasks' heads: `gpu_ops.ragged_head`."""
        return [logits.numpy() for logits in ragged_head(vectors, spans, heads)]

    def encode(self, batch: PackedBatch) -> Encoded:
        """Return the last layer's hidden states of the tokens that are read."""
        hidden = embed_tokens(
            batch,
            self.backbone.embeddings,
            self.backbone.layer_norm_eps,
            self._expanded,
            self.operators.add_layer_norm,
        ).to(self._dtype)
        num_layers = self.backbone.shape.num_layers
        read = read_tokens(batch, num_layers)
        for layer in range(num_layers):
            attended = self._attended(layer, hidden, batch)
            if layer == num_layers - 1 and read is not None:
                attended, hidden, batch = attended[read.tokens], hidden[read.tokens], read.batch
            hidden = self._behind_attention(layer, attended, hidden, batch)
        return Encoded(hidden.float(), batch)

    def _attended(self, layer: int, hidden: torch.Tensor, batch: PackedBatch) -> torch.Tensor:
        qkv = self._product(layer, "qkv", hidden, batch)
        prefixes = prefix_states(layer, hidden, batch, self._expanded)
        bias = None
        if self._relative_bias is not None:
            bias = self._relative_bias.up_to(max(batch.row_lens))
        return self.operators.attention(
            qkv, self.backbone.shape.num_heads, batch.row_lens, bias, prefixes
        )

    def _behind_attention(
        self, layer: int, attended: torch.Tensor, hidden: torch.Tensor, batch: PackedBatch
    ) -> torch.Tensor:
        """Return the layer's output, from its input and what attention made of it."""
        output = self._product(layer, "attention_output", attended, batch)
        hidden = self._end_sublayer(layer, "attention_output", output, hidden, batch)
        inner = self._product(layer, "ffn_input", hidden, batch)
        self.operators.activate_(inner)
        output = self._product(layer, "ffn_output", inner, batch)
        return self._end_sublayer(layer, "ffn_output", output, hidden, batch)

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
            return self.products.multiply((layer, product), x, (), self.operators)
        active = [(segment.tokens, ops) for segment, ops in segments]
        scaled = [(span, ops.input_scale) for span, ops in active if ops.input_scale is not None]
        if scaled and product in ("qkv", "ffn_input"):
            x = x.clone()  # the residual reads it too
        self._scale_(x, scaled)
        y = self.products.multiply((layer, product), x, active, self.operators)
        self._add_low_rank_(y, x, product, segments)
        scales = [(span, ops.output_scale) for span, ops in active if ops.output_scale is not None]
        self._scale_(y, scales)
        self._add_bias_(y, [(span, ops.bias) for span, ops in active if ops.bias is not None])
        self._add_adapters_(y, active)
        return y

    def _scale_(self, x: torch.Tensor, tasks: Sequence[tuple[Span, torch.Tensor]]) -> None:
        """Scale the rows of tasks, compiled where that is chosen."""
        spans, scales = [span for span, _ in tasks], [scale for _, scale in tasks]
        if self.operators.vectors is not None:
            self.operators.vectors.scale_(x, spans, scales)
        else:
            scale_(x, spans, [self._expanded.vector(scale) for scale in scales])

    def _add_bias_(self, y: torch.Tensor, tasks: Sequence[tuple[Span, torch.Tensor]]) -> None:
        """Add the biases of tasks, likewise."""
        spans, biases = [span for span, _ in tasks], [bias for _, bias in tasks]
        if self.operators.vectors is not None:
            self.operators.vectors.add_bias_(y, spans, biases)
        else:
            add_bias_(y, spans, [self._expanded.vector(bias) for bias in biases])

    def _add_low_rank_(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        product: Product,
        segments: Sequence[tuple[Segment, ProductOps]],
    ) -> None:
        """Add low-rank updates, compiled where there is one that takes them."""
        compiled = self.operators.add_low_rank_
        by_torch: list[tuple[Segment, LowRankFactors]] = []
        by_compiled: list[tuple[Span, LowRankFactors]] = []
        for segment, ops in segments:
            if ops.low_rank is None:
                continue
            if compiled is not None and compiled.takes(ops.low_rank):
                by_compiled.append((segment.tokens, ops.low_rank))
            else:
                by_torch.append((segment, ops.low_rank))
        if compiled is not None:
            compiled(y, x, [span for span, _ in by_compiled], [task for _, task in by_compiled])
        add_low_rank_(
            y,
            x,
            [segment.tokens for segment, _ in by_torch],
            [self._expanded.low_rank(factors) for _, factors in by_torch],
            self.low_rank_products[product],
            [segment.row_lens for segment, _ in by_torch],
        )

    def _add_adapters_(self, y: torch.Tensor, tasks: Sequence[tuple[Span, ProductOps]]) -> None:
        """Run adapters, compiled where there is one that takes them."""
        compiled = self.operators.add_bottleneck_
        by_torch: list[tuple[Span, BottleneckWeights]] = []
        by_compiled: list[tuple[Span, BottleneckWeights]] = []
        for span, ops in tasks:
            if ops.adapter is None:
                continue
            adapter = self._expanded.adapter(ops.adapter)
            is_taken = compiled is not None and compiled.takes(adapter)
            (by_compiled if is_taken else by_torch).append((span, adapter))
        if compiled is not None:
            compiled(y, [span for span, _ in by_compiled], [one for _, one in by_compiled])
        add_bottleneck_(
            y,
            [span for span, _ in by_torch],
            [adapter for _, adapter in by_torch],
            self.adapter_products,
        )

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
