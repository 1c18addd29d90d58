"""What a task does to the shared backbone, site by site: the unified representation in memory.

A linear site computes, over its input x and the shared weight W [out, in] and bias b,

    W' = W + sparse + dense                                  V = W' + scale * b a
    y  = output_scale * ((x * input_scale) W'^T + b + gate * scale * (x a^T) b^T) + bias

and with a magnitude (DoRA), y = magnitude / ||V||_row * (x V^T) + b + bias. The output h of a
sub-layer, its input r and its LayerNorm give, with a bottleneck (`Bottleneck`), another h; each
attention sees the task's own keys and values (`Prefix`) before those of the row; and the
embeddings of a row may be preceded by vectors of the task's (`Prompt`) and changed (`RowDeltas`).
A LayerNorm computes with gamma + norm_weight and beta + norm_bias. No PET kind uses all of these;
an absent op costs nothing (PetS, section 4: Y_t = X W + b + op_t(X, Y)).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tasks.backbone_shape import Site

Activation = Literal["gelu", "gelu_new", "leaky_relu", "relu", "sigmoid", "silu", "tanh"]
"""`gelu` is the exact one, x * Phi(x); `gelu_new` its tanh approximation; `leaky_relu` has slope
0.01; `silu` is also called swish."""

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Gate:
    """How much of an op a row gets: the mean over its tokens of sigmoid(x weight + bias).

    UniPELT: Mao et al., ACL 2022, section 3.2.
    """

    weight: Array
    """Shape (in,)."""
    bias: Array
    """Shape (1,)."""


@dataclass(frozen=True, slots=True, eq=False)
class Norm:
    """A LayerNorm of the task's own, eps 1e-5."""

    weight: Array
    """Gamma, shape (features,)."""
    bias: Array
    """Beta, shape (features,)."""


@dataclass(frozen=True, slots=True, eq=False)
class LowRank:
    """LoRA's op: y += gate * scale * (x a^T) b^T."""

    a: Array
    """Shape (rank, in)."""
    b: Array
    """Shape (out, rank)."""
    scale: float
    gate: Gate | None = None


@dataclass(frozen=True, slots=True, eq=False)
class SparseDelta:
    """A change of single weights of W."""

    flat_indices: NDArray[np.int32]
    """Shape (num_changed,): positions in W read row by row, [out, in], strictly ascending."""
    values: Array | None
    """Shape (num_changed,): what is added to W there. None: the weights there are dropped
    (delta = -W)."""


@dataclass(frozen=True, slots=True, eq=False)
class KroneckerSum:
    """Compacter's projection: W^T = sum_i kron(rule_i, left_i right_i).

    Karimi Mahabadi, Henderson, Ruder, NeurIPS 2021, equations 3 and 5.
    """

    rule: Array
    """Shape (n, n, n)."""
    left: Array
    """Shape (n, in / n, rank), or the whole blocks, (n, in / n, out / n)."""
    right: Array | None
    """Shape (n, rank, out / n). None: `left` has the whole blocks."""


Reads = Literal["output", "normed", "input"]
AddsTo = Literal["output", "normed", "summed"]
NormAfter = Literal["change", "sum"]


@dataclass(frozen=True, slots=True, eq=False)
class Bottleneck:
    """An adapter's op at the end of a sub-layer with output h, input r and LayerNorm LN.

        change = gate * up(activation(down(norm_before(source))))
        z      = base + norm_after(change)           or norm_after(base + change)
        result = LN(z + r)                           or z, where the adapter skips the norm

    Source and base are named by `reads` and `adds_to`: `output` is h, `input` r, `summed` h + r,
    `normed` LN(h + r). By default all is as in Houlsby et al.: LN(h + up(activation(down(h))) + r).
    """

    down_weight: Array | KroneckerSum
    """Shape (bottleneck, hidden)."""
    down_bias: Array
    """Shape (bottleneck,)."""
    up_weight: Array | KroneckerSum
    """Shape (hidden, bottleneck)."""
    up_bias: Array
    """Shape (hidden,)."""
    activation: Activation
    reads: Reads = "output"
    """`input`: the adapter stands parallel to the sub-layer (He et al., ICLR 2022)."""
    adds_to: AddsTo = "output"
    norm_before: Norm | None = None
    norm_after: Norm | None = None
    norm_after_on: NormAfter = "change"
    """Whether `norm_after` acts on the change alone or on its sum with the base."""
    gate: Gate | None = None
    skips_norm: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether it is h + up(activation(down(h))), which needs neither r nor LN."""
        extras = (self.norm_before, self.norm_after, self.gate)
        return (
            (self.reads, self.adds_to) == ("output", "output")
            and all(extra is None for extra in extras)
            and not self.skips_norm
        )


@dataclass(frozen=True, slots=True, eq=False)
class Prefix:
    """Keys and values that each row of the task attends to beside its own tokens'.

    Li and Liang, ACL 2021. With a gate over the sub-layer's input, both are multiplied by it.
    """

    keys: Array
    """Shape (num_virtual, hidden), heads one after the other."""
    values: Array
    """Shape (num_virtual, hidden)."""
    gate: Gate | None = None


PromptPlace = Literal["first", "after_cls", "last"]
PromptLevel = Literal["words", "hidden"]


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """Vectors that stand among those of each row's tokens (Lester et al., EMNLP 2021)."""

    vectors: Array
    """Shape (num_virtual, embedding) for `words`, (num_virtual, hidden) for `hidden`."""
    place: PromptPlace
    """`first`: before the row's own tokens; `after_cls`: behind the first of them."""
    enters: PromptLevel
    """`words`: among the word embeddings, so that positions and LayerNorm follow, and the tokens
    behind have later positions; `hidden`: behind the embeddings' LayerNorm and, where there is one,
    their projection, without positions."""
    pools_own: bool
    """Whether `cls` pooling reads the row's own first token, or the first of all tokens."""


@dataclass(frozen=True, slots=True, eq=False)
class RowDeltas:
    """A change of some rows of an embedding table."""

    rows: NDArray[np.int32]
    """Shape (num_changed,), strictly ascending."""
    values: Array
    """Shape (num_changed, embedding), added to those rows."""


@dataclass(frozen=True, slots=True, eq=False)
class ProjectionDelta:
    """A change of the projection behind the embeddings, which makes the layers' width of theirs."""

    weight: Array
    """Shape (hidden, embedding), added to its weight."""
    bias: Array
    """Shape (hidden,), added to its bias."""


@dataclass(frozen=True, slots=True, eq=False)
class SiteOps:
    """The ops of one task at one site of one layer."""

    bias: Array | None = None
    """Shape (out,), added last."""
    low_rank: LowRank | None = None
    magnitude: Array | None = None
    """Shape (out,): the length that each row of V is given (DoRA)."""
    input_scale: Array | None = None
    """Shape (in,), multiplies the site's input."""
    output_scale: Array | None = None
    """Shape (out,), multiplies the site's output, shared bias included."""
    sparse: SparseDelta | None = None
    dense: Array | None = None
    """Shape (out, in), added to W."""
    adapter: Bottleneck | None = None
    """At `attention_output` and `ffn_output`: acts at the end of the sub-layer."""
    norm_weight: Array | None = None
    """Shape (hidden,), at `embeddings` (embedding,), added to gamma."""
    norm_bias: Array | None = None
    """Shape (hidden,), at `embeddings` (embedding,), added to beta."""
    prefix: Prefix | None = None
    """At `attention`."""
    prompt: Prompt | None = None
    """At `embeddings`, as are the following; their LayerNorm is `norm_weight`, `norm_bias`."""
    word_deltas: RowDeltas | None = None
    position_deltas: Array | None = None
    """Shape (num_positions, embedding), added to the table of positions."""
    type_deltas: Array | None = None
    """Shape (num_token_types, embedding), added to the table of token types."""
    projection_delta: ProjectionDelta | None = None
    position_offset: int = 0
    """By how much the positions of the row's own tokens are moved."""


@dataclass(frozen=True, slots=True, eq=False)
class HiddenLayer:
    """The layer of a head before its last: activation(pooled weight^T + bias)."""

    weight: Array | None
    """Shape (features, hidden). None: the backbone's pooler."""
    bias: Array | None
    """Shape (features,)."""
    activation: Activation


@dataclass(frozen=True, slots=True, eq=False)
class PetWeights:
    """All weights of one level of one task, validated; arrays are C-contiguous and read-only."""

    kind: str
    sites: Mapping[tuple[int, Site], SiteOps]
    """(layer, site) -> its ops; sites without ops are absent. `embeddings` stands at layer 0."""
    head_weight: Array | None
    """Shape (num_outputs, features). None, as the bias: what stands before is the output."""
    head_bias: Array | None
    """Shape (num_outputs,)."""
    num_bytes: int
    """Size of the weight file."""
    head_hidden: HiddenLayer | None = None
    """Where the head has two layers."""
