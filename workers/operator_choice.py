"""Which compiled operators are faster than torch's: measured here, for each type and shape.

What they gain depends on the processor, the compiler, the type and the shape, so nothing is
assumed. What is measured is one thread's CPU time, once per machine (`MachineFigures`).
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

import torch

from gpu_ops.bias import add_bias_
from gpu_ops.bottleneck import BottleneckWeights, add_bottleneck_
from gpu_ops.compiled.library import Library
from gpu_ops.low_rank import LowRankFactors, UpFactor, add_low_rank_
from gpu_ops.scale import scale_
from gpu_ops.spans import Span
from gpu_ops.sparse_delta import SparseWeights, changed_values, sparse_weights
from workers.backbone import Backbone
from workers.machine_figures import MachineFigures
from workers.operators import OperatorName, Operators, available, operators
from workers.torch_dtypes import dtype_name
from workers.way_timing import least_us

Run = Callable[[Operators], torch.Tensor]

logger = logging.getLogger(__name__)

_REPEATS = 5
_TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
_TASKS, _RANK, _BOTTLENECK = 8, 8, 64
"""Of the trials with low-rank updates, adapters and vectors."""
_DENSITY = 0.01
"""Between that of diff pruning and that of MaskBERT."""


def faster_ones(
    backbone: Backbone, dtype: torch.dtype, library: Library | None, figures: MachineFigures
) -> frozenset[OperatorName]:
    """Return which compiled operators are faster than torch's, measured if they were not yet.

    Args:
        backbone: Gives the shapes.
        dtype: What is computed in.
        library: The compiled operators of this machine, if there are any.
        figures: Those of this machine.
    """
    names = available(backbone, library)
    if library is None or not names:
        return frozenset()
    values = cache(changed_values)
    ways = {
        "torch": operators(backbone, values, None, ()),
        "compiled": operators(backbone, values, library, names),
    }
    chosen: set[OperatorName] = set()
    for name in names:
        trial = _TRIALS[name](backbone, dtype)
        title = f"{name} {trial.shape} {dtype_name(dtype)} {library.name}"
        found = figures.measured(title, partial(_us_by_way, trial, ways))
        if found["compiled"] < found["torch"] and _agree(trial, ways, dtype):
            chosen.add(name)
    logger.debug("compiled operators in use, %s: %s", dtype, sorted(chosen))
    return frozenset(chosen)


@dataclass(frozen=True, slots=True)
class _Trial:
    """What one operator is timed with."""

    shape: str
    runs: Mapping[int, Run]
    """Number of rows -> computes that many with the operators given."""


def _attention(backbone: Backbone, dtype: torch.dtype) -> _Trial:
    heads, hidden = backbone.shape.num_heads, backbone.shape.hidden_size

    def run(row_lens: list[int]) -> Run:
        qkv = torch.randn(sum(row_lens), 3 * hidden).to(dtype)
        return lambda ops: ops.attention(qkv, heads, row_lens)

    return _Trial(f"{heads}x{hidden // heads}", {64: run([8] * 8), 400: run([100] * 4)})


def _activation(backbone: Backbone, dtype: torch.dtype) -> _Trial:
    width = len(backbone.products[0, "ffn_input"].weight)

    def run(num_rows: int) -> Run:
        x = torch.randn(num_rows, width).to(dtype)
        return lambda ops: ops.activate_(x.clone())

    return _Trial(str(width), {rows: run(rows) for rows in (64, 512)})


def _layer_norm(backbone: Backbone, dtype: torch.dtype) -> _Trial:
    norm, width = backbone.norms[0, "ffn_norm"], backbone.shape.hidden_size
    eps = backbone.layer_norm_eps

    def run(num_rows: int, own: Sequence[Span]) -> Run:
        x, residual = (torch.randn(num_rows, width).to(dtype) for _ in range(2))
        norms = [norm] * len(own)
        return lambda ops: ops.add_layer_norm(x.clone(), residual, norm, eps, own, norms)

    # The smaller batch is of tasks with LayerNorms of their own.
    return _Trial(f"{width}, own and shared", {64: run(64, _spans(8)), 512: run(512, [])})


def _patch(backbone: Backbone, dtype: torch.dtype) -> _Trial:
    weight = backbone.products[0, "ffn_input"].weight
    delta, out = _change(weight), torch.empty_like(weight)

    def run(ops: Operators) -> torch.Tensor:
        return ops.patch_weight(weight, delta, out)

    return _Trial("x".join(map(str, weight.shape)), {1: run})


def _sparse_product(backbone: Backbone, dtype: torch.dtype) -> _Trial:
    weight = backbone.products[0, "ffn_input"].weight
    delta = _change(weight)

    def run(num_rows: int) -> Run:
        x = torch.randn(num_rows, weight.shape[1]).to(dtype)

        def add(ops: Operators) -> torch.Tensor:
            y = x.new_zeros(num_rows, len(weight))
            ops.add_sparse_delta_(y, x, [Span(0, num_rows)], [delta], weight)
            return y

        return add

    return _Trial("x".join(map(str, weight.shape)), {rows: run(rows) for rows in (16, 64)})


def _low_rank(backbone: Backbone, dtype: torch.dtype) -> _Trial:
    num_out, num_in = backbone.products[0, "qkv"].weight.shape
    width = num_out // 3
    ups = [UpFactor(site * _RANK, site * width, torch.randn(width, _RANK)) for site in (0, 2)]
    held = LowRankFactors(torch.randn(3 * _RANK, num_in), tuple(ups))
    converted = LowRankFactors(
        held.down.to(dtype), tuple(up._replace(weight=up.weight.to(dtype)) for up in ups)
    )

    def run(num_rows: int) -> Run:
        x, spans = torch.randn(_TASKS * num_rows, num_in).to(dtype), _spans(num_rows)

        def add(ops: Operators) -> torch.Tensor:
            y = x.new_zeros(len(x), num_out)
            if ops.add_low_rank_ is None:
                add_low_rank_(y, x, spans, [converted] * _TASKS)
            else:
                ops.add_low_rank_(y, x, spans, [held] * _TASKS)
            return y

        return add

    return _Trial(f"{num_out}x{num_in}", {_TASKS * rows: run(rows) for rows in (8, 64)})


def _adapter(backbone: Backbone, dtype: torch.dtype) -> _Trial:
    hidden = backbone.shape.hidden_size
    down, up = torch.randn(_BOTTLENECK, hidden) / hidden**0.5, torch.randn(hidden, _BOTTLENECK)
    adapter = BottleneckWeights(
        down.half(), torch.randn(_BOTTLENECK), up.half(), torch.randn(hidden), "gelu"
    )

    def run(num_rows: int) -> Run:
        h, spans = torch.randn(_TASKS * num_rows, hidden).to(dtype), _spans(num_rows)

        def add(ops: Operators) -> torch.Tensor:
            out = h.clone()
            if ops.add_bottleneck_ is None:
                add_bottleneck_(out, spans, [adapter] * _TASKS)
            else:
                ops.add_bottleneck_(out, spans, [adapter] * _TASKS)
            return out

        return add

    return _Trial(str(hidden), {_TASKS * rows: run(rows) for rows in (8, 64)})


def _vectors(backbone: Backbone, dtype: torch.dtype) -> _Trial:
    width = len(backbone.products[0, "qkv"].weight)
    held = [torch.randn(width).half() for _ in range(_TASKS)]
    converted = [vector.to(dtype) for vector in held]

    def run(num_rows: int) -> Run:
        x, spans = torch.randn(_TASKS * num_rows, width).to(dtype), _spans(num_rows)

        def change(ops: Operators) -> torch.Tensor:
            y = x.clone()
            if ops.vectors is None:
                scale_(y, spans, converted)
                add_bias_(y, spans, converted)
            else:
                ops.vectors.scale_(y, spans, held)
                ops.vectors.add_bias_(y, spans, held)
            return y

        return change

    return _Trial(str(width), {_TASKS * rows: run(rows) for rows in (8, 64)})


def _spans(num_rows: int) -> list[Span]:
    """Return those of the trial's tasks, each with as many rows."""
    return [Span(task * num_rows, (task + 1) * num_rows) for task in range(_TASKS)]


_TRIALS: Mapping[OperatorName, Callable[[Backbone, torch.dtype], _Trial]] = {
    "attention": _attention,
    "activation": _activation,
    "layer norm": _layer_norm,
    "patch": _patch,
    "sparse product": _sparse_product,
    "low rank": _low_rank,
    "adapter": _adapter,
    "vectors": _vectors,
}


def _change(weight: torch.Tensor) -> SparseWeights:
    """Return dropped weights, evenly spread."""
    num_out, num_in = weight.shape
    flat = torch.linspace(0, weight.numel() - 1, round(_DENSITY * weight.numel()) or 1)
    return sparse_weights(torch.unique(flat.int()), None, (num_out, num_in))


def _agree(trial: _Trial, ways: Mapping[str, Operators], dtype: torch.dtype) -> bool:
    """Return whether both ways compute the same: another compiler has compiled what tests saw."""
    tolerance = _TOLERANCES[dtype]
    run = next(iter(trial.runs.values()))
    one, other = (run(ways[way]).float().clone() for way in ("torch", "compiled"))
    return torch.allclose(one, other, rtol=tolerance, atol=tolerance)


def _us_by_way(trial: _Trial, ways: Mapping[str, Operators]) -> dict[str, float]:
    """Return CPU time of this thread in microseconds a row, mean over the sizes."""
    totals_us = dict.fromkeys(ways, 0.0)
    for num_rows, run in trial.runs.items():
        runs = {way: partial(run, ops) for way, ops in ways.items()}
        for way, us in least_us(runs, _REPEATS).items():
            totals_us[way] += us / num_rows
    return {way: total_us / len(trial.runs) for way, total_us in totals_us.items()}
