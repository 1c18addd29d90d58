"""One pass of a packed batch by grouped operators: what `workers.encoder` computes, on a device.

    y   = h W                                       one product for all rows of all tasks
    y  += masks, sparse changes, low ranks, adapters      each operator for all tasks at once
    y   = act(y + bias_t) * scale_t                 qkv and ffn_input: one pass over y
    h   = LayerNorm_t(y + bias_t + h)               attention_output and ffn_output: one pass

A product has no bias until one of the last two adds the row's own or the shared one. What kernels
do not know, torch runs task by task (`looped_place`). In bfloat16 parameters of LayerNorms and
biases are bfloat16 too, sums are float32. The tables of a batch are made before its first layer
(of rows that are pooled by their first token, those of the last layer too), so that a layer waits
for the device only where gates of rows are computed.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property, partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from gpu_ops.activations import ACTIVATIONS
from gpu_ops.grouped.bias_gelu import RowVectors, bias_gelu_
from gpu_ops.grouped.kernel_catalogue import compile_kernels
from gpu_ops.grouped.launch import kernels_for
from gpu_ops.grouped.layer_norm import NormPool, add_layer_norm
from gpu_ops.grouped.scale import scale_
from gpu_ops.grouped.streams import OperatorStreams
from gpu_ops.layer_norm import add_layer_norm as torch_add_layer_norm
from gpu_ops.layer_norm import changed_norm
from gpu_ops.ragged_head import HeadWeights
from gpu_ops.spans import Span
from gpu_ops.sublayer_adapter import run_sublayer_adapter
from workers.backbone import NORM_BEHIND, Backbone, Product
from workers.embed_tokens import embed_tokens
from workers.expanded_weights import ExpandedWeights
from workers.grouped.batch_plan import BatchPlan, plan_batch
from workers.grouped.device_attention import device_attention, fits_kernel
from workers.grouped.device_backbone import DeviceBackbone
from workers.grouped.device_heads import run_heads
from workers.grouped.looped_place import run_looped_place
from workers.grouped.on_device import OnDevice
from workers.grouped.packed_rows import PackedRows
from workers.grouped.pass_graphs import PassGraphs, StaticPass
from workers.grouped.product_time import products_us_per_row
from workers.grouped.task_pools import TaskPools
from workers.packed_batch import PackedBatch, Segment, batch_on
from workers.precision import Precision
from workers.prefix_states import prefix_states
from workers.read_tokens import Encoded, read_tokens
from workers.relative_attention import RelativeBias
from workers.task_ops import TaskOps
from workers.torch_dtypes import TORCH_DTYPES


class GroupedEncoder:
    """The backbone on a device, and pools of its tasks. Runs one pass at a time.

    Tasks must be on the device (`workers.device_copies`).
    """

    def __init__(self, backbone: Backbone, precision: Precision, how: OnDevice) -> None:
        """Copy the backbone, and compile the kernels.

        Raises:
            BackboneUnsupportedError: If kernels cannot read rows of its sizes.
        """
        self._backbone = backbone
        self._how = how
        self._dtype = dtype = TORCH_DTYPES[precision]
        self._shared = DeviceBackbone.of(backbone, how.device, dtype)
        self.pools = TaskPools(backbone, self._shared, how.pool_bytes)
        self._expanded = ExpandedWeights(dtype)
        self._streams = OperatorStreams(how.num_streams, how.device)
        self.graphs = PassGraphs(how.device, dtype, how.max_graphs, self._run_static)
        table = self._shared.relative_attention
        self._relative_bias = (
            None if table is None else RelativeBias(table, backbone.shape.max_positions)
        )
        qkv = self._shared.products[0, "qkv"].weight
        has_tables = how.device.type == "cpu" or fits_kernel(qkv.t(), backbone.shape.num_heads)
        self._may_capture = (
            how.max_graphs > 0
            and how.unit == "grouped"
            and has_tables
            and self._relative_bias is None
        )
        kernels = kernels_for(qkv, how.kernels)
        if kernels is not None:
            with _current(how.device):
                compile_kernels(kernels, dtype)

    @cached_property
    def us_per_row(self) -> float:
        """Time of one layer's products, microseconds a row; measured at the first asking."""
        return products_us_per_row(self._shared)

    def prepared(self, ops: TaskOps) -> TaskOps:
        """Return the ops as they are: there is one way to each."""
        return ops

    def head(
        self, vectors: torch.Tensor, spans: Sequence[Span], heads: Sequence[HeadWeights]
    ) -> list[NDArray[np.float32]]:
        """Run the tasks' heads."""
        with _current(self._how.device):
            return run_heads(vectors, spans, heads, self._how.kernels)

    def encode(self, batch: PackedBatch) -> Encoded:
        """Return the last layer's hidden states of the tokens that are read.

        Args:
            batch: In host memory; its tasks on the device.
        """
        with _current(self._how.device):
            return self._encode(batch)

    def _encode(self, batch: PackedBatch) -> Encoded:
        batch = batch_on(batch, self._how.device)
        plan = last_plan = plan_batch(
            batch, self.pools, self._shared, self._how, may_capture=self._may_capture
        )
        if plan.sizes is not None:
            rows = PackedRows(
                batch.row_lens, plan.sizes.num_tokens, self._how.device, plan.sizes, plan.tables
            )
            hidden = self.graphs.run(self._embedded(batch), batch, rows, plan)
            return Encoded(hidden.to(torch.float32, copy=True), batch)
        num_layers = self._backbone.shape.num_layers
        read = read_tokens(batch, num_layers)
        if read is not None:  # now, while the device has nothing to wait for
            last_plan = plan_batch(read.batch, self.pools, self._shared, self._how)
            last_plan.tables.upload()
        plan.tables.upload()
        rows = PackedRows(batch.row_lens, len(batch.token_ids), self._how.device)
        hidden = self._embedded(batch).to(self._dtype)
        for layer in range(num_layers):
            attended = self._attended(layer, hidden, batch, rows, plan)
            if layer == num_layers - 1 and read is not None:
                attended, hidden, batch = attended[read.tokens], hidden[read.tokens], read.batch
                plan = last_plan
            hidden = self._behind_attention(layer, attended, hidden, plan)
        return Encoded(hidden.float(), batch)

    def _run_static(self, pass_: StaticPass) -> torch.Tensor:
        hidden = pass_.hidden
        for layer in range(self._backbone.shape.num_layers):
            attended = self._attended(layer, hidden, pass_.batch, pass_.rows, pass_.plan)
            hidden = self._behind_attention(layer, attended, hidden, pass_.plan)
        return hidden

    def _embedded(self, batch: PackedBatch) -> torch.Tensor:
        return embed_tokens(
            batch,
            self._shared.embeddings,
            self._backbone.layer_norm_eps,
            self._expanded,
            torch_add_layer_norm,
        )

    def _attended(
        self,
        layer: int,
        hidden: torch.Tensor,
        batch: PackedBatch,
        rows: PackedRows,
        plan: BatchPlan,
    ) -> torch.Tensor:
        qkv = self._product(layer, "qkv", hidden, plan)
        self._add_bias_(layer, "qkv", qkv, plan)
        bias = None
        if self._relative_bias is not None:
            bias = self._relative_bias.up_to(max(batch.row_lens))
        return device_attention(
            qkv,
            self._backbone.shape.num_heads,
            rows,
            bias,
            prefix_states(layer, hidden, batch, self._expanded),
        )

    def _behind_attention(
        self, layer: int, attended: torch.Tensor, hidden: torch.Tensor, plan: BatchPlan
    ) -> torch.Tensor:
        """Return the layer's output, from its input and what attention made of it."""
        output = self._product(layer, "attention_output", attended, plan)
        hidden = self._end_sublayer(layer, "attention_output", output, hidden, plan)
        inner = self._product(layer, "ffn_input", hidden, plan)
        self._activate_(layer, inner, plan)
        output = self._product(layer, "ffn_output", inner, plan)
        return self._end_sublayer(layer, "ffn_output", output, hidden, plan)

    def _product(
        self, layer: int, product: Product, x: torch.Tensor, plan: BatchPlan
    ) -> torch.Tensor:
        """Return the product with what tasks change of it, without bias but in looped places."""
        shared = self._shared.products[layer, product]
        if product in plan.all_masked:
            y = x.new_zeros(len(x), len(shared.weight))
        else:
            y = F.linear(x, shared.weight)
        if product in plan.changes:
            self._streams.run(
                [
                    [partial(operator.run, layer, y, x) for operator in of_stream]
                    for of_stream in plan.changes[product]
                ]
            )
        for segment, ops in plan.looped.get((layer, product), ()):
            rows = slice(*segment.tokens)
            y[rows] = run_looped_place(x[rows], y[rows], shared, ops, segment, self._expanded)
        return y

    def _add_bias_(
        self,
        layer: int,
        product: Product,
        y: torch.Tensor,
        plan: BatchPlan,
        *,
        gelu: bool = False,
        scale_of: Product | None = "qkv",
    ) -> None:
        """Run a product's epilogue."""
        biases = RowVectors(self.pools.vectors.at(layer, product), plan.vector_slots)
        bias_gelu_(
            y,
            self._shared.products[layer, product].bias,
            biases,
            gelu=gelu,
            scales=None if scale_of is None else self._scales(layer, scale_of, plan),
            kernels=self._how.kernels,
        )

    def _activate_(self, layer: int, inner: torch.Tensor, plan: BatchPlan) -> None:
        """Add ffn_input's bias, run the activation, and scale what ffn_output reads."""
        if self._backbone.activation == "gelu":
            self._add_bias_(layer, "ffn_input", inner, plan, gelu=True, scale_of="ffn_output")
            return
        self._add_bias_(layer, "ffn_input", inner, plan, scale_of=None)
        ACTIVATIONS[self._backbone.activation](inner)
        scales = self._scales(layer, "ffn_output", plan)
        if scales is not None:
            scale_(inner, scales, self._how.kernels)

    def _scales(self, layer: int, product: Product, plan: BatchPlan) -> RowVectors | None:
        if plan.scale_slots is None:
            return None
        return RowVectors(self.pools.scales.at(layer, product), plan.scale_slots)

    def _end_sublayer(
        self,
        layer: int,
        product: Product,
        output: torch.Tensor,
        residual: torch.Tensor,
        plan: BatchPlan,
    ) -> torch.Tensor:
        """Add bias and residual and normalise, or let a task's adapter do so; changes `output`."""
        adapted = [
            (slice(*segment.tokens), self._adapted(layer, product, output, residual, segment))
            for segment, ops in plan.looped.get((layer, product), ())
            if ops.sublayer_adapter is not None
        ]
        pool = NormPool(
            self._shared.norm_params[layer, product],
            self.pools.vectors.at(layer, product),
            plan.vector_slots,
        )
        eps, kernels = self._backbone.layer_norm_eps, self._how.kernels
        hidden = add_layer_norm(output, residual, pool, eps, kernels, out=output)
        for rows, result in adapted:
            hidden[rows] = result
        return hidden

    def _adapted(
        self,
        layer: int,
        product: Product,
        output: torch.Tensor,
        residual: torch.Tensor,
        segment: Segment,
    ) -> torch.Tensor:
        """Return what a sub-layer gives the rows of a task whose adapter knows its end, float32."""
        site = NORM_BEHIND[product]
        norm, deltas = self._shared.norms[layer, site], segment.task.ops.norms.get((layer, site))
        if deltas is not None:
            norm = changed_norm(norm, deltas)
        adapter = segment.task.ops.products[layer, product].sublayer_adapter
        assert adapter is not None
        rows = slice(*segment.tokens)
        return run_sublayer_adapter(
            output[rows].float(),
            residual[rows].float(),
            norm,
            self._backbone.layer_norm_eps,
            adapter,
            self._expanded.adapter(adapter.projections),
            segment.row_lens,
        ).to(self._dtype)


def _current(device: torch.device) -> AbstractContextManager[object]:
    """Make a device the current one, which is where kernels are compiled for and launched."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
