"""`gpu_ops.low_rank`, compiled: both products in one call, of factors as they are held."""

import ctypes
from collections.abc import Sequence
from weakref import WeakKeyDictionary

import torch

from gpu_ops.compiled.library import POINTER, SIZE, Library, check_contiguous
from gpu_ops.low_rank import LowRankFactors
from gpu_ops.spans import Span


class CompiledLowRank:
    """Called like `add_low_rank_`; may be called from several threads."""

    def __init__(self, library: Library) -> None:
        self._scratch = library.function("low_rank_scratch", SIZE, SIZE, SIZE, POINTER, result=SIZE)
        self._most_ups: int = library.function("low_rank_most_ups", result=SIZE)()
        self._add = library.by_dtype(
            "add_low_rank",
            *(POINTER, SIZE, POINTER, SIZE, SIZE),
            *(POINTER, SIZE, SIZE),
            *(SIZE, POINTER, POINTER, SIZE),
            POINTER,
        )
        self._arguments: WeakKeyDictionary[LowRankFactors, _Arguments] = WeakKeyDictionary()

    def takes(self, factors: LowRankFactors) -> bool:
        """Return whether it computes these: not those with gates, or of more parts than it has."""
        ups = factors.ups
        return len(ups) <= self._most_ups and all(up.gate is None for up in ups)

    def __call__(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        spans: Sequence[Span],
        factors: Sequence[LowRankFactors],
    ) -> None:
        """Add each task's low-rank product to the rows of that task.

        Args:
            y: Shape (num_tokens, out), float32 or bfloat16. Changed in place.
            x: Shape (num_tokens, in), the site's input, of the same type.
            spans: Disjoint.
            factors: One per span, float16 or float32, such as `takes` says.
        """
        if not spans:
            return
        check_contiguous(y, x)
        num_out, num_in = y.shape[1], x.shape[1]
        add = self._add[y.dtype]
        for (start, end), task in zip(spans, factors, strict=True):
            arguments = self._arguments.get(task)
            if arguments is None:
                arguments = self._arguments[task] = _Arguments(task, self._scratch)
            scratch = torch.empty(arguments.scratch_floats)
            add(
                *(y.data_ptr() + start * num_out * y.itemsize, num_out),
                *(x.data_ptr() + start * num_in * x.itemsize, end - start, num_in),
                *arguments.values,
                scratch.data_ptr(),
            )


class _Arguments:
    """Those of one task's factors, which outlive it."""

    def __init__(self, factors: LowRankFactors, scratch: "ctypes._NamedFuncPointer") -> None:
        down, ups = factors.down, factors.ups
        check_contiguous(down, *(up.weight for up in ups))
        # One type for all of the up factors: they are narrowed one by one.
        weights = [up.weight for up in ups]
        if len({weight.dtype for weight in weights}) > 1:
            weights = [weight.float() for weight in weights]
        self._held = weights
        places = [
            place
            for up in ups
            for place in (up.weight.shape[1], up.weight.shape[0], up.first_rank, up.first_output)
        ]
        self._places = (ctypes.c_int64 * len(places))(*places)
        self._pointers = (ctypes.c_void_p * len(ups))(*(weight.data_ptr() for weight in weights))
        ranks, num_in = down.shape
        self.scratch_floats: int = scratch(num_in, ranks, len(ups), self._places)
        self.values = (
            *(down.data_ptr(), down.itemsize, ranks),
            *(len(ups), self._places, self._pointers, weights[0].itemsize),
        )
