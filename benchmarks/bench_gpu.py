"""The grouped kernels on a CUDA device, against the ways that are there without them.

    python benchmarks/bench_gpu.py [--json] [--repeats 20]
                                   [--only operators encoder peft adapterhub ceiling kernels engine]
                                   [--schedules grouped grouped-on-streams per-task-on-streams]
                                   [--streams 2]

- **operators**: each one on a batch of 64 tasks, against torch's operators in a loop over tasks.
- **encoder**: BERT-base over 64 tasks of 64-token rows: by each schedule; the loop; the bare
  backbone; one merged model per task, one after another, each a captured CUDA graph (SeqS).
  Schedules are one stream with grouped operators, several streams with grouped operators, and
  several with one operator per task, as PetS has it; dealt by operational intensity.
- **peft**: the same LoRA mix through PEFT's `adapter_names`, where PEFT is installed.
- **adapterhub**: adapters through AdapterHub's `BatchSplit`, where `make bench-env` ran.
- **ceiling**: the bare backbone's share of what one large matrix product reaches, BERT-base and
  BERT-large.
- **kernels**: where a pass of each mix spends its time.
- **engine**: the engine that serves, from token ids to logits, with and without the tasks' PETs.

Everything is bfloat16 and random. Whatever can be captured is captured and the replays are timed,
by events on the device, the ways in turn; a row has the medians. The engine is timed by the clock.
Outputs are compared before anything is timed. Without a device it says so and exits with 1.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch

import gpu_ops.bottleneck
import gpu_ops.layer_norm
import gpu_ops.low_rank
import gpu_ops.ragged_head
import gpu_ops.scale
import gpu_ops.sparse_delta
from benchmarks.gpu_encoder import (
    BERT_BASE,
    BERT_LARGE,
    EPS,
    PRODUCTS,
    Draw,
    Kind,
    LoopOps,
    Shape,
    encode,
    packed_attention,
)
from benchmarks.gpu_engine import engine_rows
from benchmarks.gpu_kernel_times import kernel_rows
from benchmarks.gpu_mixes import (
    DTYPE,
    MIX,
    MIXES,
    NUM_TASKS,
    ROW_LEN,
    ROWS_PER_TASK,
    EncoderRun,
    draw_tasks,
)
from benchmarks.gpu_peers import adapterhub_rows, peft_rows
from benchmarks.gpu_timing import Way, captured, compared, in_turn, medians_ms
from benchmarks.grouped_encoder import ONE_STREAM, GroupedOps, Schedule, bare_ops
from benchmarks.task_operators import MaskForm, adapter_pool, low_rank_pool
from gpu_ops.bias import add_bias_
from gpu_ops.grouped.bias_gelu import RowVectors, bias_gelu_
from gpu_ops.grouped.bottleneck import add_bottleneck_
from gpu_ops.grouped.layer_norm import NormPool, add_layer_norm
from gpu_ops.grouped.low_rank import add_low_rank_
from gpu_ops.grouped.masked_product import masked_product_, pack_mask
from gpu_ops.grouped.ragged_head import head_pool, ragged_head
from gpu_ops.grouped.scale import scale_
from gpu_ops.grouped.segments import TILE_ROWS, Segment, TileTable, row_slots, tile_entries
from gpu_ops.grouped.sparse_delta import DELTA_ROWS, add_sparse_delta_, sparse_pool
from gpu_ops.layer_norm import NormWeights
from gpu_ops.ragged_head import HeadWeights
from gpu_ops.spans import Span
from gpu_ops.sparse_delta import changed_values
from petstream.benchmarks.document import Goal, make_document
from workers.grouped.on_device import OnDevice

OPERATOR_BATCHES = ((NUM_TASKS, 1), (16, 64), (NUM_TASKS, 64), (NUM_TASKS, 512))
"""Tasks, and tokens of each."""
SCHEDULES: Mapping[str, Callable[[int], Schedule]] = {
    "grouped": lambda _: ONE_STREAM,
    "grouped-on-streams": partial(Schedule, "grouped"),
    "per-task-on-streams": partial(Schedule, "per task"),
}
"""What the encoder runs by, given how many streams."""
CEILING_ROW_LEN = 128
FULL_MODEL_MB = 219.0
"""BERT-base in two bytes to a weight, embeddings included."""


class Operator(NamedTuple):
    """One operator on a batch of all tasks, in both ways."""

    name: str
    y: torch.Tensor
    """What it changes in place, or its input."""
    grouped: Callable[[torch.Tensor], torch.Tensor | None]
    loop: Callable[[torch.Tensor], torch.Tensor | None]
    """Both return the result, if they do not leave it in what they are given."""

    def error(self) -> float:
        """Run both on copies and return how far apart they are."""
        first, second = self.y.clone(), self.y.clone()
        found, expected = self.grouped(first), self.loop(second)
        return compared(
            self.name,
            first if found is None else found,
            second if expected is None else expected,
        )


class OperatorBatch:
    """Rows of all tasks at BERT-base's sizes."""

    def __init__(self, num_tasks: int, tokens: int) -> None:
        self._num_tasks = num_tasks
        self._tokens = tokens
        self._rows = num_tasks * tokens
        self._draw = Draw(BERT_BASE, "cuda", DTYPE)
        self._spans = [Span(i * tokens, (i + 1) * tokens) for i in range(num_tasks)]
        self._segments = [Segment(span, slot) for slot, span in enumerate(self._spans)]
        self._slots = row_slots(self._segments, self._rows).cuda()

    def operators(self) -> Iterator[Operator]:
        """Yield each in turn, its weights freed before the next one's are drawn."""
        yield self._bias_gelu()
        yield self._scale()
        yield self._layer_norm()
        yield self._low_rank(None)
        for tile_rows in TILE_ROWS:
            yield self._low_rank(tile_rows)
            yield self._bottleneck(tile_rows)
            yield self._masked_product(tile_rows)
        yield self._sparse_delta("diff")
        yield self._sparse_delta("mask")
        yield self._ragged_head()

    def _tiles(self, tile_rows: int) -> TileTable:
        capacity = self._num_tasks * -(-self._tokens // tile_rows)
        return TileTable(tile_entries(self._segments, tile_rows, capacity).cuda(), tile_rows)

    def _bias_gelu(self) -> Operator:
        width = BERT_BASE.intermediate
        vectors, shared = self._draw.normal(self._num_tasks, width), self._draw.normal(width)
        table = RowVectors(vectors + shared, self._slots)

        def loop(y: torch.Tensor) -> None:
            y.add_(shared)
            add_bias_(y, self._spans, list(vectors))
            torch.ops.aten.gelu_(y)

        return Operator(
            "bias_gelu",
            self._draw.normal(self._rows, width),
            lambda y: bias_gelu_(y, shared, table, gelu=True),
            loop,
        )

    def _scale(self) -> Operator:
        width = BERT_BASE.intermediate
        vectors = self._draw.normal(self._num_tasks, width, shift=1.0)
        table = RowVectors(vectors, self._slots)
        return Operator(
            "scale",
            self._draw.normal(self._rows, width),
            lambda y: scale_(y, table),
            lambda y: gpu_ops.scale.scale_(y, self._spans, list(vectors)),
        )

    def _layer_norm(self) -> Operator:
        width = BERT_BASE.hidden
        residual = self._draw.normal(self._rows, width)
        params = self._draw.normal(self._num_tasks, 3, width)
        params[:, 1] += 1
        pool = NormPool(params[0].clone(), params, self._slots)
        norms = [NormWeights(gamma, beta) for _, gamma, beta in params]

        def loop(x: torch.Tensor) -> torch.Tensor:
            add_bias_(x, self._spans, list(params[:, 0]))
            return gpu_ops.layer_norm.add_layer_norm(x, residual, norms[0], EPS, self._spans, norms)

        x = self._draw.normal(self._rows, width)
        return Operator("layer_norm", x, lambda x: add_layer_norm(x, residual, pool, EPS), loop)

    def _low_rank(self, tile_rows: int | None) -> Operator:
        x = self._draw.normal(self._rows, BERT_BASE.hidden, scale=1.0)
        drawn = [self._draw.task_layer("lora").low_rank for _ in range(self._num_tasks)]
        factors = [one for one in drawn if one is not None]
        pool = low_rank_pool(factors)
        groups = self._slots if tile_rows is None else self._tiles(tile_rows)
        return Operator(
            "low_rank, by rows" if tile_rows is None else f"low_rank, tiles of {tile_rows}",
            self._draw.normal(self._rows, 3 * BERT_BASE.hidden),
            lambda y: add_low_rank_(y, x, pool, groups),
            lambda y: gpu_ops.low_rank.add_low_rank_(y, x, self._spans, factors),
        )

    def _bottleneck(self, tile_rows: int) -> Operator:
        adapters = [
            self._draw.task_layer("adapter").adapters["ffn_output"] for _ in range(self._num_tasks)
        ]
        tiles = self._tiles(tile_rows)
        pool = adapter_pool(adapters, torch.zeros(BERT_BASE.hidden, device="cuda", dtype=DTYPE))
        return Operator(
            f"bottleneck, tiles of {tile_rows}",
            self._draw.normal(self._rows, BERT_BASE.hidden, scale=1.0),
            lambda h: add_bottleneck_(h, pool, tiles),
            lambda h: gpu_ops.bottleneck.add_bottleneck_(h, self._spans, adapters),
        )

    def _sparse_delta(self, kind: Kind) -> Operator:
        out, width = BERT_BASE.sizes("ffn_input")
        x = self._draw.normal(self._rows, width, scale=1.0)
        weight = self._draw.normal(out, width)
        deltas = [self._draw.sparse("ffn_input", kind) for _ in range(self._num_tasks)]
        values = [changed_values(delta, weight) for delta in deltas]
        pool, tiles = sparse_pool(deltas, DTYPE), self._tiles(DELTA_ROWS)
        return Operator(
            f"sparse_delta, {kind}",
            self._draw.normal(self._rows, out),
            lambda y: add_sparse_delta_(y, x, weight, pool, tiles),
            lambda y: gpu_ops.sparse_delta.add_sparse_delta_(y, x, self._spans, deltas, values),
        )

    def _masked_product(self, tile_rows: int) -> Operator:
        out, width = BERT_BASE.sizes("ffn_input")
        x = self._draw.normal(self._rows, width, scale=1.0)
        weight = self._draw.normal(out, width)
        is_kept = [torch.rand(out, width, device="cuda") > 0.05 for _ in range(self._num_tasks)]
        kept, tiles = torch.stack([pack_mask(mask) for mask in is_kept]), self._tiles(tile_rows)

        def loop(y: torch.Tensor) -> None:
            for (start, end), mask in zip(self._spans, is_kept, strict=True):
                torch.mm(x[start:end], (weight * mask).t(), out=y[start:end])

        return Operator(
            f"masked_product, tiles of {tile_rows}",
            self._draw.normal(self._rows, out),
            lambda y: masked_product_(y, x, weight, kept, tiles),
            loop,
        )

    def _ragged_head(self) -> Operator:
        heads = [
            HeadWeights(self._draw.normal(8, BERT_BASE.hidden), self._draw.normal(8))
            for _ in range(self._num_tasks)
        ]
        pool = head_pool(heads)
        return Operator(
            "ragged_head",
            self._draw.normal(self._rows, BERT_BASE.hidden, scale=1.0),
            lambda v: ragged_head(v, pool, self._slots, 8),
            lambda v: torch.cat(gpu_ops.ragged_head.ragged_head(v, self._spans, heads)),
        )


def operator_rows(repeats: int) -> Iterator[dict[str, Any]]:
    """Measure each operator at each size, over and over on the same tensors."""
    for num_tasks, tokens in OPERATOR_BATCHES:
        for operator in OperatorBatch(num_tasks, tokens).operators():
            distance = operator.error()
            y = operator.y
            loop = partial(operator.loop, y)
            ways: dict[str, Way] = {
                "grouped": captured(partial(operator.grouped, y)),
                "loop": captured(loop),
                "loop, not captured": loop,
            }
            times_ms = medians_ms(ways, repeats)
            ours_ms = times_ms["grouped"]
            yield {
                "part": "operators",
                "name": operator.name,
                "tasks": num_tasks,
                "tokens_per_task": tokens,
                "grouped_ms": round(ours_ms, 4),
                "over_loop": round(times_ms["loop"] / ours_ms, 2),
                "over_loop_not_captured": round(times_ms["loop, not captured"] / ours_ms, 2),
                "error": round(distance, 5),
            }


def encoder_rows(
    repeats: int, schedules: Sequence[str], num_streams: int
) -> Iterator[dict[str, Any]]:
    """Measure the encoder on each mix, by each schedule."""
    chosen = {name: SCHEDULES[name](num_streams) for name in schedules}
    draw = Draw(BERT_BASE, "cuda", DTYPE)
    backbone = [draw.layer() for _ in range(BERT_BASE.num_layers)]
    for mix, kinds in MIXES.items():
        for rows in ROWS_PER_TASK if kinds == MIX else ROWS_PER_TASK[:2]:
            tasks = draw_tasks(draw, kinds, rows * ROW_LEN)
            run = EncoderRun(backbone, tasks, rows)
            yield from _encoder_row(mix, run, rows, chosen, repeats)
            del tasks, run
            torch.cuda.empty_cache()


def _encoder_row(
    mix: str, run: EncoderRun, rows: int, schedules: Mapping[str, Schedule], repeats: int
) -> Iterator[dict[str, Any]]:
    forms: list[MaskForm] = ["sparse", "bits"] if "mask" in mix else ["sparse"]
    num_tokens = len(run.hidden)
    merged = run.merged_ways()
    expected = torch.cat([way() for way in merged])
    seqs = in_turn([captured(way) for way in merged])
    bare = bare_ops(run.backbone, num_tokens)
    loop = LoopOps(run.backbone, run.tasks)
    for form in forms:
        ways: dict[str, Way] = {"bare": captured(partial(run.run, bare)), "merged": seqs}
        errors = []
        for name, schedule in schedules.items():
            ops = GroupedOps(run.backbone, run.tasks, num_tokens, form, schedule)
            errors.append(compared(f"{mix}, {name}", run.run(ops), expected))
            ways[name] = captured(partial(run.run, ops))
        if rows == 1:
            compared(f"{mix}, loop", run.run(loop), expected)
            ways["loop"] = partial(run.run, loop)
        times_ms = medians_ms(ways, repeats)
        ours_ms = min(times_ms[name] for name in schedules)
        task_bytes = sum(of.num_bytes() for task in run.tasks for of in task.layers) / NUM_TASKS
        yield {
            "part": "encoder",
            "name": mix,
            "masks_as": form if "mask" in mix else None,
            "tasks": NUM_TASKS,
            "rows_per_task": rows,
            "row_len": ROW_LEN,
            "ms_by_schedule": {name: round(times_ms[name], 3) for name in schedules},
            "num_streams": max(schedule.num_streams for schedule in schedules.values()),
            "merged_ms": round(times_ms["merged"], 3),
            "tokens_per_s": round(num_tokens / ours_ms * 1000),
            "over_merged_captured": round(times_ms["merged"] / ours_ms, 2),
            "over_loop_not_captured": (
                round(times_ms["loop"] / ours_ms, 2) if "loop" in times_ms else None
            ),
            "share_of_bare": round(times_ms["bare"] / ours_ms, 3),
            "task_mb": round(task_bytes / 1e6, 2),
            "error": round(max(errors), 4),
        }


def ceiling_rows(repeats: int) -> Iterator[dict[str, Any]]:
    """Measure the bare backbone's matrix products against one large product."""
    size = 8192
    a, b = (torch.randn(size, size, device="cuda", dtype=DTYPE) for _ in range(2))
    product_ms = medians_ms({"mm": lambda: torch.mm(a, b)}, repeats)["mm"]
    ceiling = 2 * size**3 / product_ms / 1e9
    for name, shape in {"bert-base": BERT_BASE, "bert-large": BERT_LARGE}.items():
        for num_tokens in (8192, 65536):
            time_ms, flops = _bare_pass(shape, num_tokens, repeats)
            reached = flops / time_ms / 1e9
            yield {
                "part": "ceiling",
                "name": name,
                "tokens": num_tokens,
                "row_len": CEILING_ROW_LEN,
                "bare_ms": round(time_ms, 3),
                "tflops": round(reached),
                "ceiling_tflops": round(ceiling),
                "share": round(reached / ceiling, 3),
            }


def _bare_pass(shape: Shape, num_tokens: int, repeats: int) -> tuple[float, int]:
    """Return the time of a pass in milliseconds, and the FLOPs of its products."""
    draw = Draw(shape, "cuda", DTYPE)
    backbone = [draw.layer() for _ in range(shape.num_layers)]
    weights = sum(layer.weights[product].numel() for layer in backbone for product in PRODUCTS)
    hidden = draw.normal(num_tokens, shape.hidden, scale=1.0)
    row_lens = [CEILING_ROW_LEN] * (num_tokens // CEILING_ROW_LEN)
    attention = packed_attention(row_lens, shape.num_heads, "cuda")
    ops = bare_ops(backbone, num_tokens)
    way = captured(partial(encode, hidden, len(backbone), ops, attention))
    return medians_ms({"bare": way}, repeats)["bare"], 2 * weights * num_tokens


def goals_of(rows: Sequence[dict[str, Any]]) -> list[Goal]:
    """Judge the figures that `performance.md` names (G1 to G5) and this run has."""

    def best(key: str, **where: object) -> list[float]:
        found = [row for row in rows if all(row.get(k) == v for k, v in where.items())]
        return [max(row[key] for row in found)] if found else []

    mix, few = "+".join(MIX), {"part": "encoder", "rows_per_task": 1}
    many = {"part": "encoder", "rows_per_task": ROWS_PER_TASK[-1]}
    table: list[tuple[str, float, list[float], str]] = [
        ("G1-mix", 8.0, best("over_merged_captured", name=mix, **few), "over merged models"),
        ("G1-masks", 5.0, best("over_merged_captured", name="with masks", **few), "likewise"),
        ("G1-many", 1.0, best("over_merged_captured", name=mix, **many), "likewise"),
        ("G2-peft", 20.0, best("over_peer", part="peft"), "over PEFT"),
        ("G2-adapterhub", 10.0, best("over_peer", part="adapterhub"), "over BatchSplit"),
        ("G3-mix", 0.80, best("share_of_bare", name=mix, **few), "of the bare backbone"),
        ("G3-masks", 0.50, best("share_of_bare", name="masks", **few), "likewise"),
        ("G4-base", 0.45, best("share", part="ceiling", name="bert-base"), "of a large product"),
        ("G4-large", 0.55, best("share", part="ceiling", name="bert-large"), "likewise"),
        (
            "G5-masks",
            20.0,
            [FULL_MODEL_MB / mb for mb in best("task_mb", name="masks", **few)],
            "merged models' bytes over a task's",
        ),
        (
            "G5-mix",
            40.0,
            [FULL_MODEL_MB / mb for mb in best("task_mb", name=mix, **few)],
            "likewise",
        ),
    ]
    return [
        Goal(name, target, round(value, 3), unit)
        for name, target, values, unit in table
        for value in values
    ]


PARTS = ("operators", "encoder", "peft", "adapterhub", "ceiling", "kernels", "engine")


def rows_of(part: str, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Measure one part."""
    if part == "encoder":
        return encoder_rows(options.repeats, options.schedules, options.streams)
    if part == "engine":
        return engine_rows(OnDevice(torch.device("cuda:0")), options.repeats)
    rows: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
        "operators": partial(operator_rows, options.repeats),
        "peft": peft_rows,
        "adapterhub": adapterhub_rows,
        "ceiling": partial(ceiling_rows, options.repeats),
        "kernels": kernel_rows,
    }
    return rows[part]()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts of it")
    parser.add_argument(
        "--schedules", nargs="+", choices=SCHEDULES, default=list(SCHEDULES), help="of the encoder"
    )
    parser.add_argument("--streams", type=int, default=2, help="of a schedule on streams")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("bench_gpu: there is no CUDA device here; the figures need one")
    rows: list[dict[str, Any]] = []
    with torch.inference_mode():
        for part in PARTS:
            if part in options.only:
                for row in rows_of(part, options):
                    rows.append(row)
                    print(json.dumps(row), file=sys.stderr if options.json else sys.stdout)
    if options.json:
        document = make_document(rows, goals_of(rows))
        print(json.dumps(document | {"device": torch.cuda.get_device_name()}))


if __name__ == "__main__":
    main()
