"""Compacter: adapters whose projections are sums of Kronecker products.

Karimi Mahabadi, Henderson, Ruder, NeurIPS 2021, equations 3 and 5. Stored and held are the factors;
a worker multiplies them out for the tasks in use, which then run as adapters do.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from tasks.backbone_shape import BackboneShape
from tasks.errors import RankOutOfRange
from tasks.pets.bottleneck import BottleneckPet
from tasks.pets.pet import Tensors, TensorSpec, to_float32
from tasks.site_ops import KroneckerSum

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
        """Leave the factors as they are."""
        is_factored = self.phm_rank is not None
        weight = KroneckerSum(
            rule=to_float32(tensors[_SHARED_RULE if self.shared_rule else f"{prefix}.rule"]),
            left=to_float32(tensors[f"{prefix}.left" if is_factored else f"{prefix}.blocks"]),
            right=to_float32(tensors[f"{prefix}.right"]) if is_factored else None,
        )
        return weight, to_float32(tensors[f"{prefix}.bias"])
