"""Which operators an encoder runs with: those of torch, or compiled ones where a library has them.

Both compute the same within rounding. Which are faster is measured: `workers.operator_choice`.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch

from gpu_ops.activations import ACTIVATIONS
from gpu_ops.compiled.attention import HEAD_WIDTHS, CompiledAttention
from gpu_ops.compiled.bottleneck import CompiledBottleneck
from gpu_ops.compiled.gelu import CompiledGelu
from gpu_ops.compiled.layer_norm import CompiledAddLayerNorm
from gpu_ops.compiled.library import Library
from gpu_ops.compiled.low_rank import CompiledLowRank
from gpu_ops.compiled.sparse_delta import CompiledSparseDelta
from gpu_ops.compiled.vectors import CompiledVectors
from gpu_ops.layer_norm import NormWeights, add_layer_norm
from gpu_ops.spans import Span
from gpu_ops.sparse_delta import SparseWeights, add_sparse_delta_, patch_weight
from gpu_ops.varlen_attention import PrefixStates, varlen_attention
from workers.backbone import Backbone

OperatorName = Literal[
    "attention",
    "activation",
    "layer norm",
    "patch",
    "sparse product",
    "low rank",
    "adapter",
    "vectors",
]
OPERATOR_NAMES: tuple[OperatorName, ...] = (
    "attention",
    "activation",
    "layer norm",
    "patch",
    "sparse product",
    "low rank",
    "adapter",
    "vectors",
)
Values = Callable[[SparseWeights, torch.Tensor], torch.Tensor]
"""Takes a change and its weight, returns what it adds (`changed_values`)."""


class Attention(Protocol):
    """`gpu_ops.varlen_attention.varlen_attention`."""

    def __call__(
        self,
        qkv: torch.Tensor,
        num_heads: int,
        row_lens: Sequence[int],
        bias: torch.Tensor | None = None,
        prefixes: Mapping[int, PrefixStates] | None = None,
    ) -> torch.Tensor:
        """Return what the rows attend to."""


class AddLayerNorm(Protocol):
    """`gpu_ops.layer_norm.add_layer_norm`."""

    def __call__(
        self,
        x: torch.Tensor,
        residual: torch.Tensor,
        shared: NormWeights,
        eps: float,
        spans: Sequence[Span],
        own: Sequence[NormWeights],
    ) -> torch.Tensor:
        """Return the LayerNorm of the sum; may return `x`, overwritten."""


class PatchWeight(Protocol):
    """`gpu_ops.sparse_delta.patch_weight`, told what the copy has already."""

    def __call__(
        self,
        weight: torch.Tensor,
        delta: SparseWeights,
        out: torch.Tensor,
        before: SparseWeights | None = None,
    ) -> torch.Tensor:
        """Return `out` with the weight and its change; `before`: the change that it had."""


class AddSparseDelta(Protocol):
    """`gpu_ops.sparse_delta.add_sparse_delta_`, for changes of one float32 weight."""

    def __call__(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        spans: Sequence[Span],
        deltas: Sequence[SparseWeights],
        weight: torch.Tensor,
    ) -> None:
        """Add each task's sparse product to the rows of that task."""


@dataclass(frozen=True, slots=True)
class Operators:
    """One of each."""

    attention: Attention
    activate_: Callable[[torch.Tensor], torch.Tensor]
    add_layer_norm: AddLayerNorm
    patch_weight: PatchWeight
    add_sparse_delta_: AddSparseDelta
    add_low_rank_: CompiledLowRank | None
    """None: torch's, which goes by the number of rows (`workers.task_products`)."""
    add_bottleneck_: CompiledBottleneck | None
    """Likewise."""
    vectors: CompiledVectors | None
    """Biases and scales. None: torch's, of vectors in the type that is computed in."""
    compiled: frozenset[OperatorName]
    """Which of them are compiled."""
    library: str
    """Name of the library that those are from; empty where there is none."""


def operators(
    backbone: Backbone, values: Values, library: Library | None, compiled: Collection[OperatorName]
) -> Operators:
    """Return the given operators from the library, the others from torch.

    Args:
        backbone: Whose activation it is.
        values: For torch's sparse product.
        library: The compiled operators; None where `compiled` is empty.
        compiled: Among those that `available` returns.
    """

    def add_sparse(
        y: torch.Tensor,
        x: torch.Tensor,
        spans: Sequence[Span],
        deltas: Sequence[SparseWeights],
        weight: torch.Tensor,
    ) -> None:
        add_sparse_delta_(y, x, spans, deltas, [values(delta, weight) for delta in deltas])

    def has(name: OperatorName) -> Library | None:
        return library if name in compiled else None

    patching, beside = has("patch"), has("sparse product")
    attention, activation, norm = has("attention"), has("activation"), has("layer norm")
    low_rank, adapter, vectors = has("low rank"), has("adapter"), has("vectors")
    return Operators(
        CompiledAttention(attention) if attention else varlen_attention,
        CompiledGelu(activation) if activation else ACTIVATIONS[backbone.activation],
        CompiledAddLayerNorm(norm) if norm else add_layer_norm,
        CompiledSparseDelta(patching).patch_weight if patching else _patch_anew,
        CompiledSparseDelta(beside).add_sparse_delta_ if beside else add_sparse,
        CompiledLowRank(low_rank) if low_rank else None,
        CompiledBottleneck(adapter) if adapter else None,
        CompiledVectors(vectors) if vectors else None,
        frozenset(compiled),
        library.name if library is not None and compiled else "",
    )


def _patch_anew(
    weight: torch.Tensor,
    delta: SparseWeights,
    out: torch.Tensor,
    before: SparseWeights | None = None,
) -> torch.Tensor:
    """Torch takes longer to write a change back than to copy the weight."""
    return patch_weight(weight, delta, out)


def available(backbone: Backbone, library: Library | None) -> list[OperatorName]:
    """Return the operators that the library has for a backbone."""
    if library is None:
        return []
    width = backbone.shape.hidden_size // backbone.shape.num_heads
    absent = {
        "attention": width not in HEAD_WIDTHS,
        "activation": backbone.activation != "gelu",
    }
    return [name for name in OPERATOR_NAMES if not absent.get(name, False)]
