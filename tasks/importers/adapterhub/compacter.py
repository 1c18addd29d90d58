"""The library's PHM layers, of which Compacter's projections consist.

A layer computes y = x H + b with H = sum_i kron(rule_i, W_i). Rules and W are whole or products of
two factors, and belong to the projection or to all of the adapter (`PHMLayer`).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.errors import KindUnsupported, RankOutOfRange
from tasks.importers.adapterhub.config import BottleneckConfig
from tasks.importers.adapterhub.source import Source
from tasks.importers.rounding import float32

Dense = dict[str, NDArray[np.float32]]


class PhmProjections:
    """Reads projections as `tasks.pets.compacter` has them."""

    def __init__(self, config: BottleneckConfig, source: Source) -> None:
        if config.scaling == "channel":
            raise KindUnsupported(
                "a Compacter whose output is scaled channel by channel is no sum of Kronecker "
                "products: train again with scaling 1.0 or learned"
            )
        self._config = config
        self._source = source
        self._shared = f"shared_parameters.{source.name}"
        self._n = config.phm_dim

    def fields(self) -> dict[str, Any]:
        """Return the hyperparameters that only this kind has."""
        rank = (self._config.phm_rank or 1) if self._config.factorized_phm_W else None
        is_shared = bool(self._config.shared_phm_rule)
        return {"phm_dim": self._n, "phm_rank": rank, "shared_rule": is_shared}

    def projection(
        self, prefix: str, target: str, num_in: int, num_out: int, scale: NDArray[np.float32]
    ) -> Dense:
        """Take one projection; the scale goes into W and the bias.

        Raises:
            RankOutOfRange: If its sizes are no multiples of `phm_dim`.
        """
        n = self._n
        if num_in % n or num_out % n:
            raise RankOutOfRange(
                f"a projection from {num_in} to {num_out} cannot be cut into {n} parts, as phm_dim "
                f"says: the checkpoint is for another backbone"
            )
        take = self._source.ledger.take
        bias = np.zeros(num_out, np.float32)
        if self._config.phm_bias:
            bias = take(f"{prefix}.b", num_out)
        tensors = {f"{target}.bias": float32(scale * bias)}
        w = f"{prefix}.W"
        if self._config.shared_W_phm:
            w = f"{self._shared}.W_{target.rpartition('_')[2]}"
        if self._config.factorized_phm_W:
            rank = self._config.phm_rank or 1
            tensors[f"{target}.left"] = take(f"{w}_left", n, num_in // n, rank)
            right = take(f"{w}_right", n, rank, num_out // n)
            tensors[f"{target}.right"] = float32(scale * right)
        else:
            tensors[f"{target}.blocks"] = float32(scale * take(w, n, num_in // n, num_out // n))
        if self._config.shared_phm_rule:
            tensors["compacter.rule"] = self._rule(f"{self._shared}.phm_rule")
        else:
            tensors[f"{target}.rule"] = self._rule(f"{prefix}.phm_rule")
        return tensors

    def _rule(self, name: str) -> NDArray[np.float32]:
        n, take = self._n, self._source.ledger.take
        if not self._config.factorized_phm_rule:
            return take(name, n, n, n)
        return float32(take(f"{name}_left", n, n, 1) @ take(f"{name}_right", n, 1, n))
