"""The engine that serves, on a device, from token ids to logits: replayed, and kernel by kernel.

`bench_gpu.py` reports it beside the encoder of `grouped_encoder.py`, whose batches are put together
before the clock runs; here a batch's tables, its embeddings and its heads are in the time.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from petstream.benchmarks.synthetic_backbone import random_backbone
from tasks.backbone_shape import BackboneShape
from workers.device_copies import DeviceCopies
from workers.engine import Engine, EngineRow
from workers.grouped.on_device import OnDevice
from workers.loaded_task import LoadedTask
from workers.precision import Precision
from workers.profiler import PROFILED_PETS, load_random_task, medians_ms

BERT_BASE = BackboneShape(12, 768, 12, 3072, 30522, 512)
MIXES: Mapping[str, tuple[str, ...]] = {
    "lora+bitfit+adapter+diff": ("lora", "bitfit", "adapter", "diff"),
    "with masks": ("lora", "bitfit", "adapter", "diff", "mask"),
    "lora": ("lora",),
    "ia3": ("ia3",),
}
MAX_ERROR = 0.05
"""Of the norm of the difference of all logits over their norm, in bfloat16."""


def engine_rows(
    how: OnDevice,
    repeats: int,
    *,
    shape: BackboneShape = BERT_BASE,
    num_tasks: int = 64,
    rows_per_task: Sequence[int] = (1, 8),
    row_len: int = 64,
    precision: Precision = "bfloat16",
) -> Iterator[dict[str, Any]]:
    """Measure each mix against the same rows without any PET.

    Args:
        how: The device.
        repeats: Of which the median is taken, the ways in turn.
        shape: Of the backbone, whose weights are random.
        num_tasks: Kinds in turn.
        rows_per_task: Queries of each in a batch.
        row_len: Tokens.
        precision: Of all.

    Raises:
        AssertionError: If the device answers otherwise than the cores.
    """
    backbone = random_backbone(shape, seed=0)
    engine = Engine(backbone, precisions=(precision,), on_device=how)
    by_kernel = Engine(backbone, precisions=(precision,), on_device=replace(how, max_graphs=0))
    cores = Engine(backbone, precisions=(precision,))
    copies = DeviceCopies(backbone, how.device)
    pets = {pet.kind: pet for pet in PROFILED_PETS}
    rng = np.random.default_rng(0)
    bare = load_random_task(engine, None, precision=precision)
    for mix, kinds in MIXES.items():
        in_host = [load_random_task(cores, pets[kind], precision=precision) for kind in kinds]
        distance = _distance(engine, cores, copies, in_host, row_len)
        # Each has memory of its own on the device; what is in it makes no difference to the time.
        tasks = [copies.of(in_host[number % len(kinds)]) for number in range(num_tasks)]
        for rows in rows_per_task:
            ids = rng.integers(1, shape.vocab_size, (num_tasks * rows, row_len))
            ours = [EngineRow(tasks[n // rows], row) for n, row in enumerate(ids)]
            without = [EngineRow(bare, row) for row in ids]
            ours_ms, bare_ms = medians_ms(engine, (ours, without), repeats)
            (by_kernel_ms,) = medians_ms(by_kernel, (ours,), repeats)
            at_once_ms = _two_at_once_ms(engine, ours, repeats)
            yield {
                "part": "engine",
                "name": mix,
                "tasks": num_tasks,
                "rows_per_task": rows,
                "row_len": row_len,
                "streams": how.num_streams,
                "operators": how.unit,
                "ours_ms": round(ours_ms, 3),
                "tokens_per_s": round(ids.size / ours_ms * 1000),
                "share_of_bare": round(bare_ms / ours_ms, 3),
                "kernel_by_kernel_over_ours": round(by_kernel_ms / ours_ms, 2),
                "over_two_at_once": round(ours_ms / at_once_ms, 2),
                "error": round(distance, 5),
            }
    for one in (engine, by_kernel, cores):
        one.close()


def _two_at_once_ms(engine: Engine, batch: Sequence[EngineRow], repeats: int) -> float:
    """Return the time of a batch where two threads run them, as those of a worker do."""
    with ThreadPoolExecutor(2) as threads:
        started_s = time.perf_counter()
        for _ in threads.map(lambda _: engine.run(batch), range(2 * repeats)):
            pass
        return 1000 * (time.perf_counter() - started_s) / (2 * repeats)


def _distance(
    engine: Engine, cores: Engine, copies: DeviceCopies, tasks: Sequence[LoadedTask], row_len: int
) -> float:
    """Return how far the device's logits are from those of the cores, a row of each task."""
    shape = engine.backbone.shape
    ids = np.random.default_rng(1).integers(1, shape.vocab_size, (len(tasks), row_len))
    expected = cores.run([EngineRow(task, row) for task, row in zip(tasks, ids, strict=True)])
    on_device = [copies.of(task) for task in tasks]
    found = engine.run([EngineRow(task, row) for task, row in zip(on_device, ids, strict=True)])
    one, other = (torch.from_numpy(np.stack(logits)) for logits in (found, expected))
    distance = float(torch.linalg.vector_norm(one - other) / torch.linalg.vector_norm(other))
    if not distance <= MAX_ERROR:
        raise AssertionError(f"the device's logits differ by {distance} from those of the cores")
    return distance
