"""OpenVINO: one merged model per task, one after another."""

from typing import Any

import numpy as np
import openvino  # type: ignore[import-not-found]
from numpy.typing import NDArray

from petstream.benchmarks.engine.row_batches import batches_by_task, run_by_task
from petstream.benchmarks.engine.system import Logits, Request, System
from petstream.benchmarks.engine.systems.onnx_export import onnx_files
from petstream.benchmarks.engine.weight_files import read_rows


def build(request: Request) -> System:
    """Compile the models."""
    core = openvino.Core()
    settings = {
        "INFERENCE_NUM_THREADS": request.threads,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[request.dtype],
    }
    paths = onnx_files(request.weights, request.pooling)
    inferences = [
        core.compile_model(path, "CPU", settings).create_infer_request() for path in paths
    ]
    rows = read_rows(request.rows)
    work = batches_by_task(rows, request.how)

    def infer(inference: Any, *inputs: NDArray[np.int64]) -> NDArray[Any]:  # noqa: ANN401
        logits: NDArray[Any] = inference.infer(list(inputs))[0].copy()
        return logits

    def run() -> Logits:
        return run_by_task(inferences, rows, work, infer)

    version = openvino.__version__.partition("-")[0]
    return System(run, f"openvino {version}", paths[0].stat().st_size)
