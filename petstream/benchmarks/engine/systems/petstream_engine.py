"""Our engine: packed over all tasks, bare, and as SeqS and ParS, one merged model per task.

SeqS runs the tasks' models one after another with all threads, ParS as many side by side as there
are threads (PetS paper, section 6). `gemm` is one large product of oneDNN: the machine's ceiling.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from petstream.benchmarks.dense_task import DenseTask, without_pet
from petstream.benchmarks.engine.cases import DISTINCT_WEIGHTS, NUM_LABELS, Dtype, Rows
from petstream.benchmarks.engine.gemm import product_of_ceiling
from petstream.benchmarks.engine.pets import PETS
from petstream.benchmarks.engine.system import Logits, Request, System
from petstream.benchmarks.engine.weight_files import (
    merged_folder,
    plain_folder,
    read_pets,
    read_rows,
)
from workers.backbone import Backbone
from workers.engine import Engine, EngineRow
from workers.loaded_task import LoadedTask
from workers.machine_figures import FILE_NAME

LIBRARY = f"petstream, torch {torch.__version__}"


def build(request: Request) -> System:
    """Build one of the five."""
    if request.system == "gemm":
        return System(product_of_ceiling(request.threads, request.dtype), LIBRARY)
    rows = read_rows(request.rows)
    if request.system in ("ours", "bare"):
        return _packed(request, rows)
    return _merged(request, rows)


def _packed(request: Request, rows: Rows) -> System:
    folder = plain_folder(request.weights).resolve()
    engine = _engine(folder, request.threads, request.dtype, _figures(request))
    loaded = _load_tasks(request, engine, max(rows.tasks) + 1)
    if request.system == "bare":
        loaded = [without_pet(loaded[0])] * len(loaded)
    work = [EngineRow(loaded[t], ids) for t, ids in zip(rows.tasks, rows.token_ids, strict=True)]

    def run() -> Logits | None:
        logits = engine.run(work)
        return np.stack(logits) if request.system == "ours" else None

    num_bytes = sum(task.num_bytes for task in loaded) / len(loaded)
    return System(run, LIBRARY, num_bytes if request.system == "ours" else None)


@lru_cache(maxsize=1)
def _engine(folder: Path, threads: int, dtype: Dtype, figures: Path) -> Engine:
    backbone = Backbone.load(folder)
    return Engine(backbone, threads=threads, precisions=(dtype,), figures_file=figures)


def _figures(request: Request) -> Path:
    """Return where the figures of this run are kept: all its engines choose alike."""
    return request.weights.resolve().parent / FILE_NAME


def _merged(request: Request, rows: Rows) -> System:
    is_side_by_side = request.system == "pars"
    engines = [
        Engine(
            Backbone.load(merged_folder(request.weights, number)),
            threads=1 if is_side_by_side else request.threads,
            precisions=(request.dtype,),
            figures_file=_figures(request),
        )
        for number in range(DISTINCT_WEIGHTS)
    ]
    plain = [
        without_pet(_load_tasks(request, engine, number + 1)[number])
        for number, engine in enumerate(engines)
    ]
    by_task: dict[int, list[EngineRow]] = {}
    for task, ids in zip(rows.tasks, rows.token_ids, strict=True):
        by_task.setdefault(task, []).append(EngineRow(plain[task % len(plain)], ids))

    def run_tasks(tasks: Sequence[int]) -> dict[int, Logits]:
        return {t: np.stack(engines[t % len(engines)].run(by_task[t])) for t in tasks}

    lanes = request.threads if is_side_by_side else 1
    pool = ThreadPoolExecutor(lanes)

    def run() -> Logits:
        found: dict[int, Logits] = {}
        # Lanes take tasks in turn, so that no two of them meet at one model.
        for part in pool.map(run_tasks, [list(by_task)[lane::lanes] for lane in range(lanes)]):
            found |= part
        return np.concatenate([found[task] for task in by_task])

    num_bytes = (merged_folder(request.weights, 0) / "model.safetensors").stat().st_size
    return System(run, LIBRARY, num_bytes)


def _load_tasks(request: Request, engine: Engine, num_tasks: int) -> list[LoadedTask]:
    """Load tasks 0 to `num_tasks`; weights repeat, but each has its own copy."""
    pets = read_pets(request.weights)
    tasks = []
    for number in range(num_tasks):
        weights = pets[number % len(pets)]
        assert len(weights.head_bias) == NUM_LABELS
        tasks.append(
            DenseTask(
                name=f"task-{number}",
                kind="single_label",
                pet=PETS[request.kinds[number % len(pets) % len(request.kinds)]],
                dense=weights.dense,
                head_weight=weights.head_weight,
                head_bias=weights.head_bias,
                pooling=request.pooling,
            ).load(engine)
        )
    return tasks
