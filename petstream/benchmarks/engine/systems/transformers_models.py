"""transformers: one merged model per task, one after another."""

from collections.abc import Sequence

import torch
import transformers

from petstream.benchmarks.engine.cases import DISTINCT_WEIGHTS, Rows
from petstream.benchmarks.engine.row_batches import batches_by_task, in_row_order, padded
from petstream.benchmarks.engine.system import Logits, Request, System
from petstream.benchmarks.engine.systems.task_model import TaskModel, load_task_model
from petstream.benchmarks.engine.weight_files import read_rows


def build(request: Request) -> System:
    """Load the models."""
    dtype = getattr(torch, request.dtype)
    models = [load_task_model(request.weights, n, dtype) for n in range(DISTINCT_WEIGHTS)]
    rows = read_rows(request.rows)
    work = batches_by_task(rows, request.how)

    def run() -> Logits:
        torch.set_num_threads(request.threads)
        return _run(models, rows, work)

    return System(
        run,
        f"transformers {transformers.__version__}, torch {torch.__version__}",
        sum(p.numel() * p.element_size() for p in models[0].parameters()),
    )


@torch.inference_mode()
def _run(models: Sequence[TaskModel], rows: Rows, work: Sequence[Sequence[int]]) -> Logits:
    parts = []
    for numbers in work:
        model = models[rows.tasks[numbers[0]] % len(models)]
        ids, mask = (torch.from_numpy(values) for values in padded(rows, numbers))
        parts.append((numbers, model(ids, mask).float().numpy()))
    return in_row_order(parts, len(rows.tasks))
