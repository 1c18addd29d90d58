"""ONNX Runtime: one merged model per task, one after another, all of its graph optimisations on."""

from typing import Any

import numpy as np
import onnxruntime  # type: ignore[import-not-found]
from numpy.typing import NDArray

from petstream.benchmarks.engine.row_batches import batches_by_task, run_by_task
from petstream.benchmarks.engine.system import Logits, Request, System
from petstream.benchmarks.engine.systems.onnx_export import INPUTS, onnx_files
from petstream.benchmarks.engine.weight_files import read_rows


def build(request: Request) -> System:
    """Load the models."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = request.threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    # Threads that spin between passes would take the time of whoever runs then.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    paths = onnx_files(request.weights, request.pooling)
    sessions = [
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        for path in paths
    ]
    rows = read_rows(request.rows)
    work = batches_by_task(rows, request.how)

    def infer(session: Any, *inputs: NDArray[np.int64]) -> NDArray[Any]:  # noqa: ANN401
        (logits,) = session.run(None, dict(zip(INPUTS, inputs, strict=True)))
        found: NDArray[Any] = logits
        return found

    def run() -> Logits:
        return run_by_task(sessions, rows, work, infer)

    return System(run, f"onnxruntime {onnxruntime.__version__}", paths[0].stat().st_size)
