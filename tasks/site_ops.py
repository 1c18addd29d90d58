"""What a task does to the shared backbone, site by site: the unified representation in memory.

A linear site computes, over its input x and the shared weight W [out, in] and bias b,

    y = output_scale * ((x * input_scale) (W + sparse)^T + b + bias + scale * (x a^T) b^T)
    y = y + up(activation(down(y)))                                        where there is an adapter

and a LayerNorm computes with gamma + norm_weight and beta + norm_bias. No PET kind uses all
of these; an absent op costs nothing (PetS, section 4: Y_t = X W + b + op_t(X, Y)).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tasks.backbone_shape import Site

Activation = Literal["gelu", "relu"]
"""`gelu` is the exact one, x * Phi(x), not the tanh approximation."""


@dataclass(frozen=True, slots=True, eq=False)
class LowRank:
    """LoRA's op: y += scale * (x a^T) b^T."""

    a: NDArray[np.float32]
    """Shape (rank, in)."""
    b: NDArray[np.float32]
    """Shape (out, rank)."""
    scale: float


@dataclass(frozen=True, slots=True, eq=False)
class SparseDelta:
    """A change of single weights of W."""

    flat_indices: NDArray[np.int32]
    """Shape (num_changed,): positions in W read row by row, [out, in], strictly ascending."""
    values: NDArray[np.float32] | None
    """Shape (num_changed,): what is added to W there. None: the weights there are dropped
    (delta = -W)."""


@dataclass(frozen=True, slots=True, eq=False)
class Bottleneck:
    """An adapter's op on a dense output h: h + up(activation(down(h)))."""

    down_weight: NDArray[np.float32]
    """Shape (bottleneck, hidden)."""
    down_bias: NDArray[np.float32]
    """Shape (bottleneck,)."""
    up_weight: NDArray[np.float32]
    """Shape (hidden, bottleneck)."""
    up_bias: NDArray[np.float32]
    """Shape (hidden,)."""
    activation: Activation


@dataclass(frozen=True, slots=True, eq=False)
class SiteOps:
    """The ops of one task at one site of one layer."""

    bias: NDArray[np.float32] | None = None
    """Shape (out,), added to the shared bias."""
    low_rank: LowRank | None = None
    input_scale: NDArray[np.float32] | None = None
    """Shape (in,), multiplies the site's input."""
    output_scale: NDArray[np.float32] | None = None
    """Shape (out,), multiplies the site's output, bias included."""
    sparse: SparseDelta | None = None
    adapter: Bottleneck | None = None
    """Acts on the site's output, before residual and LayerNorm."""
    norm_weight: NDArray[np.float32] | None = None
    """Shape (hidden,), added to gamma."""
    norm_bias: NDArray[np.float32] | None = None
    """Shape (hidden,), added to beta."""


@dataclass(frozen=True, slots=True, eq=False)
class PetWeights:
    """All weights of one level of one task, validated; arrays are C-contiguous and read-only."""

    kind: str
    sites: Mapping[tuple[int, Site], SiteOps]
    """(layer, site) -> its ops; sites without ops are absent."""
    head_weight: NDArray[np.float32]
    """Shape (num_labels, hidden)."""
    head_bias: NDArray[np.float32]
    """Shape (num_labels,)."""
    num_bytes: int
    """Size of the weight file."""
