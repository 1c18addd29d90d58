"""transformers: one merged model per task, one after another."""

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from petstream.benchmarks.engine.cases import DISTINCT_WEIGHTS
from petstream.benchmarks.engine.row_batches import batches_by_task, run_by_task
from petstream.benchmarks.engine.system import Logits, Request, System
from petstream.benchmarks.engine.systems.task_model import TaskModel, load_task_model
from petstream.benchmarks.engine.weight_files import read_rows


def build(request: Request) -> System:
    """Load the models."""
    dtype = getattr(torch, request.dtype)
    models = [
        load_task_model(request.weights, n, request.pooling, dtype) for n in range(DISTINCT_WEIGHTS)
    ]
    rows = read_rows(request.rows)
    work = batches_by_task(rows, request.how)

    def run() -> Logits:
        torch.set_num_threads(request.threads)
        return run_by_task(models, rows, work, _infer)

    return System(
        run,
        f"transformers {transformers.__version__}, torch {torch.__version__}",
        sum(p.numel() * p.element_size() for p in models[0].parameters()),
    )


@torch.inference_mode()
def _infer(
    model: TaskModel, ids: NDArray[np.int64], mask: NDArray[np.int64]
) -> NDArray[np.float32]:
    logits: torch.Tensor = model(torch.from_numpy(ids), torch.from_numpy(mask))
    return logits.float().numpy()
