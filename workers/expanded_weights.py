"""What tasks' weights are expanded to when they run, for those that ran last.

A mask in memory is positions alone; its values are the backbone's. A Compacter is the factors of
its projections. Vectors and low-rank factors are float16, LayerNorms differences. To expand them
takes a part of the time of a short row, a good one for the first two, so what the tasks in use
expand to is kept, within a budget, while the tasks are in memory. Large matrices of adapters and
dense deltas are converted each time: that takes little beside what is done with them.
"""

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple, TypeVar, cast

import torch

from gpu_ops.bottleneck import BottleneckWeights
from gpu_ops.compacter import CompacterWeights, multiplied_out
from gpu_ops.layer_norm import NormDeltas, NormWeights, changed_norm
from gpu_ops.low_rank import LowRankFactors
from gpu_ops.sparse_delta import SparseWeights, changed_values
from gpu_ops.varlen_attention import PrefixStates
from workers.task_ops import PrefixOps
from workers.task_tensors import tensors_within

LIMIT_BYTES = 64 << 20
"""Some 60 masks of 5 %, 50 Compacters or 100 LoRAs of rank 8 on MiniLM-L3, half as many on
MiniLM-L6; BitFits by the thousand."""

_Expanded = TypeVar("_Expanded")


class ExpandedWeights:
    """Expands weights, and keeps what it can. May be used from any thread."""

    def __init__(self, dtype: torch.dtype, limit_bytes: int = LIMIT_BYTES) -> None:
        """Keep nothing yet.

        Args:
            dtype: What vectors, factors and prefixes are expanded to: the type they run in.
            limit_bytes: Of what is kept.
        """
        self._dtype = dtype
        self._limit_bytes = limit_bytes
        # What leaves memory may do so while this thread holds the lock.
        self._lock = threading.RLock()
        self._kept: OrderedDict[int, _Kept] = OrderedDict()
        """By the id of what is held; the one used longest ago first."""
        self._num_bytes = 0

    def values(self, delta: SparseWeights, weight: torch.Tensor) -> torch.Tensor:
        """Return what a change adds, shape (num_changed,).

        Args:
            delta: A change of `weight`; always of the same one.
            weight: Shape (out, in), contiguous.
        """
        if delta.values is not None:
            return delta.values
        return self._expanded(delta, lambda: changed_values(delta, weight))

    def adapter(self, adapter: BottleneckWeights | CompacterWeights) -> BottleneckWeights:
        """Return an adapter with whole projections."""
        if isinstance(adapter, BottleneckWeights):
            return adapter
        return self._expanded(adapter, lambda: multiplied_out(adapter))

    def vector(self, vector: torch.Tensor) -> torch.Tensor:
        """Return a bias or a scale in the type that is computed in."""
        if vector.dtype == self._dtype:
            return vector
        return self._expanded(vector, lambda: vector.to(self._dtype))

    def low_rank(self, factors: LowRankFactors) -> LowRankFactors:
        """Return low-rank factors in the type that is computed in."""
        return self._expanded(factors, lambda: _converted(factors, self._dtype))

    def norm(self, deltas: NormDeltas, shared: NormWeights) -> NormWeights:
        """Return a LayerNorm with a task's deltas, float32.

        Args:
            deltas: Those of `shared`; always of the same one.
            shared: The backbone's.
        """
        return self._expanded(deltas, lambda: changed_norm(shared, deltas))

    def prefix(self, prefix: PrefixOps) -> PrefixStates:
        """Return a prefix's keys and values in the type that is computed in."""
        states, dtype = prefix.states, self._dtype
        return self._expanded(prefix, lambda: PrefixStates(*(s.to(dtype) for s in states)))

    def _expanded(self, held: object, expand: Callable[[], _Expanded]) -> _Expanded:
        key = id(held)
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None:
                self._kept.move_to_end(key)
                return cast(_Expanded, kept.expanded)
        expanded = expand()
        # When a task leaves memory, what was made of it does: only then may an id come again.
        of_held = weakref.ref(held, lambda _: self._forget(key))
        made = _Kept(of_held, expanded, _num_bytes(expanded))
        with self._lock:
            if key not in self._kept:
                self._kept[key] = made
                self._num_bytes += made.num_bytes
            while self._num_bytes > self._limit_bytes:
                _, oldest = self._kept.popitem(last=False)
                self._num_bytes -= oldest.num_bytes
        return expanded

    def _forget(self, key: int) -> None:
        with self._lock:
            kept = self._kept.pop(key, None)
            if kept is not None:
                self._num_bytes -= kept.num_bytes


class _Kept(NamedTuple):
    of_held: "weakref.ref[object]"
    """Lives as long as the entry, and tells when what was expanded is gone."""
    expanded: object
    num_bytes: int


def _converted(factors: LowRankFactors, dtype: torch.dtype) -> LowRankFactors:
    ups = tuple(up._replace(weight=up.weight.to(dtype)) for up in factors.ups)
    return LowRankFactors(factors.down.to(dtype), ups)


def _num_bytes(expanded: object) -> int:
    return sum(tensor.nbytes for tensor in tensors_within(expanded))
