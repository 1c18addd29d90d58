"""The pools of an encoder: one for each family of grouped operators and size that tasks need.

What is written is what the operators of `gpu_ops.grouped` define: biases and scales absolute, so
that a task's own replaces the shared one; ranks and bottlenecks with zeros behind their own.
"""

from collections.abc import Hashable
from functools import partial
from weakref import WeakKeyDictionary, WeakValueDictionary

import torch

from gpu_ops.bottleneck import BottleneckWeights
from gpu_ops.compacter import CompacterWeights, multiplied_out
from gpu_ops.grouped.masked_product import pack_mask
from gpu_ops.grouped.sparse_delta import sparse_delta_shared_bytes
from gpu_ops.layer_norm import changed_norm
from gpu_ops.sparse_delta import patch_weight
from workers.backbone import NORM_BEHIND, PRODUCTS, SITES_OF, Backbone, Product
from workers.grouped.device_backbone import DeviceBackbone
from workers.grouped.slot_pool import Fill, PoolMemory, Shapes, Slices, SlotPool
from workers.grouped.task_form import Place, TaskForm, task_form
from workers.loaded_task import LoadedTask
from workers.task_ops import ProductOps

SCALED: tuple[Product, ...] = ("qkv", "ffn_output")
"""Scales of qkv's outputs, and of what ffn_output reads."""


class TaskPools:
    """Makes pools when a batch first needs them. Used from one thread."""

    def __init__(self, backbone: Backbone, on_device: DeviceBackbone, limit_bytes: int) -> None:
        """Make none yet.

        Args:
            backbone: In host memory.
            on_device: The same on the device.
            limit_bytes: Of all pools together; a batch that needs more by itself gets it.
        """
        self._backbone = backbone
        self._shared = on_device
        self.memory = PoolMemory(limit_bytes)
        self._sparse_products = [
            product for product in PRODUCTS if _has_sparse_kernel(on_device, product)
        ]
        self._forms: WeakKeyDictionary[LoadedTask, TaskForm] = WeakKeyDictionary()
        self._shared_forms: WeakValueDictionary[Hashable, TaskForm] = WeakValueDictionary()
        """Those without looped places, by what they need."""
        shape = backbone.shape
        hidden, inner = shape.hidden_size, shape.intermediate_size
        dtype = on_device.dtype
        vectors: Shapes = {
            "qkv": ((3 * hidden,), dtype),
            "attention_output": ((3, hidden), dtype),
            "ffn_input": ((inner,), dtype),
            "ffn_output": ((3, hidden), dtype),
        }
        scales: Shapes = {"qkv": ((3 * hidden,), dtype), "ffn_output": ((inner,), dtype)}
        self.vectors = self._pool(vectors, self._fill_vectors)
        self.scales = self._pool(scales, self._fill_scales)
        self._low_ranks: dict[tuple[Product, int], SlotPool] = {}
        self._adapters: dict[tuple[Product, int], SlotPool] = {}
        self._sparse: dict[tuple[Product, int], SlotPool] = {}
        self._first_changes: dict[tuple[Product, int], torch.Tensor] = {}
        self._masks: dict[Product, SlotPool] = {}

    def form_of(self, task: LoadedTask) -> TaskForm:
        """Return which operators run a task's ops: the same object for tasks that are alike."""
        form = self._forms.get(task)
        if form is None:
            form = task_form(task.ops, self._backbone, self._sparse_products)
            if not form.looped:
                form = self._shared_forms.setdefault(form.grouped_needs, form)
            self._forms[task] = form
        return form

    def low_rank(self, product: Product, rank: int) -> SlotPool:
        """Return the pool of updates of one product and rank: `LowRankPool`'s tensors."""
        key = (product, rank)
        if key not in self._low_ranks:
            weight, blocks = self._weight(product), len(SITES_OF[product])
            shapes = {
                "down": ((blocks * rank, weight.shape[1]), weight.dtype),
                "up": ((len(weight), rank), weight.dtype),
            }
            self._low_ranks[key] = self._pool(shapes, partial(self._fill_low_rank, product, rank))
        return self._low_ranks[key]

    def adapters(self, product: Product, bottleneck: int) -> SlotPool:
        """Return the pool of adapters behind one product: `BottleneckPool`'s tensors."""
        key = (product, bottleneck)
        if key not in self._adapters:
            dtype, hidden = self._shared.dtype, len(self._weight(product))
            shapes = {
                "down_weight": ((bottleneck, hidden), dtype),
                "down_bias": ((bottleneck,), dtype),
                "up_weight": ((hidden, bottleneck), dtype),
                "up_bias": ((hidden,), dtype),
                "is_relu": ((), torch.int32),
            }
            self._adapters[key] = self._pool(shapes, partial(self._fill_adapter, product))
        return self._adapters[key]

    def sparse(self, product: Product, num_changes: int) -> SlotPool:
        """Return the pool of sparse changes of one product: `SparsePool`'s rows and values."""
        key = (product, num_changes)
        if key not in self._sparse:
            shapes = {
                "columns": ((num_changes,), torch.int16),
                "values": ((num_changes,), self._shared.dtype),
                "row_offsets": ((len(self._weight(product)) + 1,), torch.int32),
            }
            self._sparse[key] = self._pool(shapes, partial(self._fill_sparse, product))
        return self._sparse[key]

    def first_changes(self, product: Product, num_changes: int) -> torch.Tensor:
        """Return where the changes of each slot of a sparse pool begin, shape (slots,), int64."""
        key, num_slots = (product, num_changes), self.sparse(product, num_changes).num_slots
        firsts = self._first_changes.get(key)
        if firsts is None or len(firsts) != num_slots:
            firsts = torch.arange(num_slots, device=self._shared.device) * num_changes
            self._first_changes[key] = firsts
        return firsts

    def masks(self, product: Product) -> SlotPool:
        """Return the pool of masks of one product, a bit to a weight."""
        if product not in self._masks:
            num_out, num_in = self._weight(product).shape
            shapes = {"kept": ((num_out, num_in // 8), torch.uint8)}
            self._masks[product] = self._pool(shapes, partial(self._fill_mask, product))
        return self._masks[product]

    def _weight(self, product: Product) -> torch.Tensor:
        return self._shared.products[0, product].weight

    def _pool(self, shapes: Shapes, fill: Fill) -> SlotPool:
        layers = self._backbone.shape.num_layers
        return SlotPool(shapes, layers, self._shared.device, self.memory, fill)

    def _grouped(self, task: LoadedTask, place: Place) -> ProductOps:
        """Return a task's ops at a place, none where torch runs them."""
        if place in self.form_of(task).looped:
            return NO_OPS
        return task.ops.products.get(place, NO_OPS)

    def _fill_vectors(self, task: LoadedTask, slices: Slices) -> None:
        looped = self.form_of(task).looped
        for place in self._backbone.products:
            layer, product = place
            bias = _bias(self._shared.products[place].bias, self._grouped(task, place))
            if place in looped:
                bias = torch.zeros_like(bias)
            site = NORM_BEHIND.get(product)
            if site is None:
                slices[product][layer] = bias
                continue
            norm, deltas = self._shared.norms[layer, site], task.ops.norms.get((layer, site))
            if deltas is not None:
                norm = changed_norm(norm, deltas)
            slices[product][layer] = torch.stack([bias, *norm])

    def _fill_scales(self, task: LoadedTask, slices: Slices) -> None:
        for product in SCALED:
            for layer in range(self._backbone.shape.num_layers):
                ops = self._grouped(task, (layer, product))
                scale = ops.output_scale if product == "qkv" else ops.input_scale
                slices[product][layer] = 1.0 if scale is None else scale

    def _fill_low_rank(self, product: Product, rank: int, task: LoadedTask, slices: Slices) -> None:
        down, up = slices["down"].zero_(), slices["up"].zero_()
        block = up.shape[1] // len(SITES_OF[product])
        for layer in range(self._backbone.shape.num_layers):
            factors = self._grouped(task, (layer, product)).low_rank
            used: dict[int, int] = {}
            for first_rank, first_output, weight, _ in () if factors is None else factors.ups:
                assert factors is not None
                size, first = weight.shape[1], used.get(first_output, 0)
                used[first_output] = first + size
                row = first_output // block * rank + first
                down[layer, row : row + size] = factors.down[first_rank : first_rank + size]
                up[layer, first_output : first_output + block, first : first + size] = weight

    def _fill_adapter(self, product: Product, task: LoadedTask, slices: Slices) -> None:
        for part in slices.values():
            part.zero_()
        for layer in range(self._backbone.shape.num_layers):
            place = (layer, product)
            ops = self._grouped(task, place)
            if ops.adapter is None:
                continue
            adapter = _whole(ops.adapter)
            down = adapter.down_weight.float()
            width = len(down)
            # What it reads lacks the bias, which the LayerNorm behind it adds.
            bias = _bias(self._shared.products[place].bias, ops)
            slices["down_weight"][layer, :width] = down
            slices["down_bias"][layer, :width] = adapter.down_bias.float() + down @ bias
            slices["up_weight"][layer, :, :width] = adapter.up_weight
            slices["up_bias"][layer] = adapter.up_bias
            slices["is_relu"][layer] = int(adapter.activation == "relu")

    def _fill_sparse(self, product: Product, task: LoadedTask, slices: Slices) -> None:
        for layer in range(self._backbone.shape.num_layers):
            change = self._grouped(task, (layer, product)).sparse
            values = None if change is None else change.weights.values
            if change is None or values is None:
                slices["row_offsets"][layer] = 0
                continue
            count = change.weights.num_changed
            slices["columns"][layer, :count] = change.weights.columns
            slices["values"][layer, :count] = values
            slices["row_offsets"][layer] = change.weights.row_offsets

    def _fill_mask(self, product: Product, task: LoadedTask, slices: Slices) -> None:
        ones = torch.ones(self._weight(product).shape, device=self._shared.device)
        for layer in range(self._backbone.shape.num_layers):
            change = self._grouped(task, (layer, product)).sparse
            kept = ones
            if change is not None and change.weights.values is None:
                kept = patch_weight(ones, change.weights, torch.empty_like(ones))
            slices["kept"][layer] = pack_mask(kept.bool())


NO_OPS = ProductOps()


def _has_sparse_kernel(shared: DeviceBackbone, product: Product) -> bool:
    """Return whether a block of the kernel gets the memory it needs."""
    num_in = shared.products[0, product].weight.shape[1]
    needed = sparse_delta_shared_bytes(num_in, shared.dtype)
    return shared.block_bytes is None or needed <= shared.block_bytes


def _bias(shared: torch.Tensor, ops: ProductOps) -> torch.Tensor:
    """Return the bias of a task's rows, float32."""
    return shared.float() if ops.bias is None else shared.float() + ops.bias


def _whole(adapter: BottleneckWeights | CompacterWeights) -> BottleneckWeights:
    return multiplied_out(adapter) if isinstance(adapter, CompacterWeights) else adapter
