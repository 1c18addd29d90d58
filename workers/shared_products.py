"""The matrix products that all tasks share, and the weights of those tasks that change them.

A task's sparse change of a weight (mask, diff) is a sparse product beside the shared one, or is
written into a copy of the weight that multiplies that task's rows: of the whole weight, or within
the shared product of a panel at a time, where that is compiled. Which is faster depends on how many
rows the task has. A dense change always is written into a copy. The copies of the changes that are
used most are kept, where they are faster still.
"""

from collections.abc import Sequence

import torch

from gpu_ops.compiled.library import Library
from gpu_ops.compiled.product import PackedProduct
from gpu_ops.spans import Span
from gpu_ops.sparse_delta import SparseWeights
from workers.backbone import PRODUCTS, Backbone, Product
from workers.break_even import MANY_ROWS
from workers.linear_backends import Linear, LinearChoice, choose
from workers.machine_figures import MachineFigures
from workers.merged_weights import MergedWeights
from workers.operators import Operators
from workers.packed_batch import ROUND_TOKENS_TO
from workers.patched_copy import PatchedCopy
from workers.sparse_policy import BreakEvens, SharedProduct, SparsePolicy
from workers.task_ops import ProductOps
from workers.torch_dtypes import dtype_name
from workers.way_timing import least_us

_SLICE_ROWS = 768
"""Of a batch of many tasks; a slice has 1,024 tokens (`workers.engine`)."""
_REPEATS = 5
WARM_UP_TOKENS = 256
"""A lone query, or a few short ones."""
Place = tuple[int, Product]
"""Layer and product."""


class SharedProducts:
    """Multiplies in one type, by the back ends that are fastest on this machine."""

    def __init__(
        self,
        backbone: Backbone,
        dtype: torch.dtype,
        operators: Operators,
        figures: MachineFigures,
        merged: MergedWeights,
        library: Library | None,
    ) -> None:
        """Choose the back ends, and measure the ways to a changed weight.

        Args:
            backbone: The shared weights.
            dtype: What to compute in.
            operators: What sparse changes are timed with.
            figures: Those of this machine; what is not among them is measured.
            merged: Keeps the weights of the sparse changes that are used most.
            library: The compiled operators of this machine, if there are any.
        """
        self._weights = {place: weights.weight for place, weights in backbone.products.items()}
        self._dtype = dtype
        self._merged = merged
        self.choices: dict[Product, LinearChoice] = {}
        for product in PRODUCTS:
            weights = backbone.products[0, product]
            converted = weights.weight.to(dtype), weights.bias.to(dtype)
            self.choices[product] = choose(*converted, figures, library)
        self._linears: dict[Place, Linear] = {}
        self._biases: dict[Place, torch.Tensor] = {}
        for place, weights in backbone.products.items():
            bias = self._biases[place] = weights.bias.to(dtype)
            choice = self.choices[place[1]]
            self._linears[place] = choice.shared_linear(weights.weight.to(dtype), bias)
        self._sparse_policy = SparsePolicy(
            (
                SharedProduct(
                    self._weights[0, product],
                    self._biases[0, product],
                    self._linears[0, product],
                    choice.unpacked_linear,
                    choice.names,
                    self._share_among_many(product, figures),
                )
                for product, choice in self.choices.items()
            ),
            operators,
            figures,
        )

    def _share_among_many(self, product: Product, figures: MachineFigures) -> float:
        """Return what a row costs in a product of a whole slice, of what it costs among a task's.

        Up to a fifth less, which decides between the ways of sparse changes.
        """
        linear, (num_out, num_in) = self._linears[0, product], self._weights[0, product].shape
        shape = f"{num_out}x{num_in} {dtype_name(self._dtype)} {self.choices[product].names}"

        def measure() -> dict[str, float]:
            of_slice, of_task = (
                torch.randn(n, num_in).to(self._dtype) for n in (_SLICE_ROWS, MANY_ROWS)
            )
            us = least_us(
                {"slice": lambda: linear(of_slice), "task": lambda: linear(of_task)}, _REPEATS
            )
            return {"slice": us["slice"] / len(of_slice), "task": us["task"] / len(of_task)}

        us_per_row = figures.measured(f"row among many, {shape}", measure)
        return us_per_row["slice"] / us_per_row["task"]

    @property
    def us_per_row(self) -> float:
        """CPU time of one layer's products, microseconds a row, as measured."""
        return sum(choice.us_per_row[choice.shared] for choice in self.choices.values())

    def warm_up(self) -> None:
        """Let oneDNN build its kernels of few rows, each of which takes as long as their product.

        A kernel belongs to a number of rows; batches are padded to multiples of `ROUND_TOKENS_TO`.
        With more rows than these the product takes ten times as long as building it.
        """
        for product, choice in self.choices.items():
            if not choice.shared.startswith("onednn"):
                continue
            num_in = self._weights[0, product].shape[1]
            for rows in range(ROUND_TOKENS_TO, WARM_UP_TOKENS + 1, ROUND_TOKENS_TO):
                self._linears[0, product](torch.zeros(rows, num_in, dtype=self._dtype))

    def break_evens(self, place: Place, delta: SparseWeights) -> BreakEvens:
        """Return from how many rows on a sparse change is better in a copy of the weight."""
        return self._sparse_policy.break_evens(delta, self._weights[place].shape)

    def multiply(
        self,
        place: Place,
        x: torch.Tensor,
        tasks: Sequence[tuple[Span, ProductOps]],
        operators: Operators,
    ) -> torch.Tensor:
        """Return the product of all rows, each with its task's weight.

        Args:
            place: Which product.
            x: Shape (num_tokens, in), of the type that is computed in.
            tasks: Those that have ops at the product, with their tokens; ascending.
            operators: For the sparse changes.

        Returns:
            Shape (num_tokens, out), likewise.
        """
        apart: list[tuple[Span, Linear]] = []
        within: list[tuple[Span, SparseWeights]] = []
        beside: list[tuple[Span, SparseWeights]] = []
        copy = PatchedCopy(self._weights[place], operators.patch_weight)
        for span, ops in tasks:
            own = self._own_linear(place, span.num_rows, ops, copy, operators)
            if own is not None:
                apart.append((span, own))
            elif ops.sparse is not None:
                is_within = span.num_rows >= ops.sparse.patch_from_rows
                (within if is_within else beside).append((span, ops.sparse.weights))
        y = _by_spans(self._linears[place], x, apart, within)
        operators.add_sparse_delta_(
            y,
            x,
            [span for span, _ in beside],
            [delta for _, delta in beside],
            self._weights[place],
        )
        return y

    def _own_linear(
        self,
        place: Place,
        num_rows: int,
        ops: ProductOps,
        copy: PatchedCopy,
        operators: Operators,
    ) -> Linear | None:
        """Return the product with a task's own weight; None if its rows are among all others'.

        What it returns is called once, before another task's.
        """
        if ops.sparse is None and ops.dense is None:
            return None
        weight, bias, choice = self._weights[place], self._biases[place], self.choices[place[1]]

        def merge() -> Linear:
            own = PatchedCopy(weight, operators.patch_weight).with_changes(ops)
            return choice.shared_linear(own.to(self._dtype), bias)

        if ops.sparse is not None and ops.dense is None:
            if num_rows >= ops.sparse.keep_from_rows:
                num_bytes = weight.numel() * self._dtype.itemsize
                kept = self._merged.product_of(ops.sparse, num_bytes, merge)
                if kept is not None:
                    return kept
            is_among_others = isinstance(self._linears[place], PackedProduct)
            if is_among_others or num_rows < ops.sparse.patch_from_rows:
                return None
        multiply = choice.unpacked_linear.op
        return lambda x: multiply(x, copy.with_changes(ops).to(self._dtype), bias)


def _by_spans(
    shared: Linear,
    x: torch.Tensor,
    apart: Sequence[tuple[Span, Linear]],
    within: Sequence[tuple[Span, SparseWeights]],
) -> torch.Tensor:
    """Multiply the spans apart by weights of their own, the rest by the shared one.

    The rest is one product: to copy its rows together costs less than to read the weight again.

    Args:
        shared: The product with the shared weight.
        x: Shape (num_tokens, in).
        apart: Ascending.
        within: Changes of the shared weight, which is packed then; ascending.

    Returns:
        Shape (num_tokens, out).
    """
    if not apart:
        return _among_others(shared, x, within)
    starts = [0, *(span.end for span, _ in apart)]
    ends = [*(span.start for span, _ in apart), len(x)]
    rest = [slice(*ends) for ends in zip(starts, ends, strict=True) if ends[0] < ends[1]]
    y: torch.Tensor | None = None
    if rest:
        parts = [x[rows] for rows in rest]
        moved = [(_without(span, apart), delta) for span, delta in within]
        product = _among_others(shared, parts[0] if len(parts) == 1 else torch.cat(parts), moved)
        y = product.new_empty(len(x), product.shape[1])
        of_rest = torch.split(product, [rows.stop - rows.start for rows in rest])
        for rows, part in zip(rest, of_rest, strict=True):
            y[rows] = part
    for (start, end), own in apart:
        part = own(x[start:end])
        if y is None:
            y = part.new_empty(len(x), part.shape[1])
        y[start:end] = part
    assert y is not None
    return y


def _among_others(
    shared: Linear, x: torch.Tensor, within: Sequence[tuple[Span, SparseWeights]]
) -> torch.Tensor:
    if not within:
        return shared(x)
    assert isinstance(shared, PackedProduct)
    return shared.with_changes(x, [span for span, _ in within], [delta for _, delta in within])


def _without(span: Span, apart: Sequence[tuple[Span, Linear]]) -> Span:
    """Return where a span stands once those apart have left."""
    num_left = sum(other.num_rows for other, _ in apart if other.start < span.start)
    return Span(span.start - num_left, span.end - num_left)
