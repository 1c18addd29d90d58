"""Where a pass of the encoder spends its time on a CUDA device, kernel by kernel."""

from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu_encoder import BERT_BASE, Draw
from benchmarks.gpu_mixes import DTYPE, MIXES, NUM_TASKS, ROW_LEN, EncoderRun, draw_tasks
from benchmarks.gpu_timing import Way, captured
from benchmarks.grouped_encoder import GroupedOps, bare_ops

PASSES = 5
NAME_CHARS = 90


def kernel_rows() -> Iterator[dict[str, Any]]:
    """Profile the bare backbone and each mix, a row of each task, on one stream."""
    draw = Draw(BERT_BASE, "cuda", DTYPE)
    backbone = [draw.layer() for _ in range(BERT_BASE.num_layers)]
    for mix, kinds in MIXES.items():
        run = EncoderRun(backbone, draw_tasks(draw, kinds, ROW_LEN), 1)
        num_tokens = len(run.hidden)
        if mix == next(iter(MIXES)):
            yield from _rows_of("bare", captured(partial(run.run, bare_ops(backbone, num_tokens))))
        ops = GroupedOps(backbone, run.tasks, num_tokens, "bits" if "mask" in mix else "sparse")
        yield from _rows_of(mix, captured(partial(run.run, ops)))
        del run, ops
        torch.cuda.empty_cache()


def _rows_of(mix: str, way: Way) -> Iterator[dict[str, Any]]:
    way()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        for _ in range(PASSES):
            way()
        torch.cuda.synchronize()
    total_us: Counter[str] = Counter()
    launches: Counter[str] = Counter()
    for event in profiled.events() or ():
        if event.device_time > 0:
            total_us[event.name] += event.device_time
            launches[event.name] += 1
    for name, time_us in total_us.most_common():
        yield {
            "part": "kernels",
            "name": mix,
            "tasks": NUM_TASKS,
            "rows_per_task": 1,
            "row_len": ROW_LEN,
            "kernel": name[:NAME_CHARS],
            "launches_per_pass": launches[name] / PASSES,
            "us_per_launch": round(time_us / launches[name], 2),
            "us_per_pass": round(time_us / PASSES, 1),
        }
