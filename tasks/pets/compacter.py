"""Compacter: adapters whose projections are sums of Kronecker products.

Karimi Mahabadi, Henderson, Ruder, NeurIPS 2021, equations 3 and 5. Stored are the factors; in
memory the projections are whole, so that they run as an adapter's do.
"""

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from tasks.backbone_shape import BackboneShape
from tasks.errors import RankOutOfRange
from tasks.pets.bottleneck import BottleneckPet
from tasks.pets.pet import Tensors, TensorSpec, to_float32

_SHARED_RULE = "compacter.rule"


class Compacter(BottleneckPet):
    """An adapter with W^T = sum_i kron(rule_i, left_i right_i), i below `phm_dim`."""

    kind: Literal["compacter"] = "compacter"
    phm_dim: Annotated[int, Field(ge=1, le=64)]
    """n: rules are n matrices [n, n]; widths are multiples of it."""
    phm_rank: Annotated[int, Field(ge=1, le=256)] | None = None
    """Rank of the blocks; None: they are whole."""
    shared_rule: bool = True
    """One set of rules for all projections (`compacter.rule`), or one for each."""

    def tensor_specs(self, shape: BackboneShape) -> dict[str, TensorSpec]:
        """Those of each place, and `compacter.rule` [n, n, n] where it is shared."""
        specs = super().tensor_specs(shape)
        if self.shared_rule:
            specs[_SHARED_RULE] = TensorSpec((self.phm_dim,) * 3)
        return specs

    def projection_specs(
        self, prefix: str, num_in: int, num_out: int, shape: BackboneShape
    ) -> dict[str, TensorSpec]:
        """`left` [n, in / n, rank] and `right` [n, rank, out / n], or `blocks`; `bias` [out]."""
        n = self.phm_dim
        if num_in % n or num_out % n:
            raise RankOutOfRange(
                f"a projection from {num_in} to {num_out} cannot be cut into {n} parts: train with "
                f"a phm_dim that divides both"
            )
        specs = {f"{prefix}.bias": TensorSpec((num_out,))}
        if self.phm_rank is None:
            specs[f"{prefix}.blocks"] = TensorSpec((n, num_in // n, num_out // n))
        else:
            specs[f"{prefix}.left"] = TensorSpec((n, num_in // n, self.phm_rank))
            specs[f"{prefix}.right"] = TensorSpec((n, self.phm_rank, num_out // n))
        if not self.shared_rule:
            specs[f"{prefix}.rule"] = TensorSpec((n, n, n))
        return specs

    def decode_projection(self, prefix: str, tensors: Tensors) -> tuple[Any, Any]:
        """Multiply the factors out."""
        rule = tensors[_SHARED_RULE if self.shared_rule else f"{prefix}.rule"]
        if self.phm_rank is None:
            blocks = to_float32(tensors[f"{prefix}.blocks"])
        else:
            blocks = to_float32(tensors[f"{prefix}.left"]) @ to_float32(tensors[f"{prefix}.right"])
        n, rows, columns = blocks.shape
        # kron(rule_i, block_i)[a r + b, c s + d] = rule_i[a, c] block_i[b, d], for blocks [r, s].
        summed = np.einsum("iac,ibd->abcd", to_float32(rule), blocks)
        weight = summed.reshape(n * rows, n * columns).T
        return to_float32(weight), to_float32(tensors[f"{prefix}.bias"])
