"""OpenVINO: one merged model per task, one after another."""

import openvino  # type: ignore[import-not-found]

from petstream.benchmarks.engine.row_batches import batches_by_task, in_row_order, padded
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
    paths = onnx_files(request.weights)
    inferences = [
        core.compile_model(path, "CPU", settings).create_infer_request() for path in paths
    ]
    rows = read_rows(request.rows)
    work = batches_by_task(rows, request.how)

    def run() -> Logits:
        parts = []
        for numbers in work:
            inference = inferences[rows.tasks[numbers[0]] % len(inferences)]
            logits = inference.infer(list(padded(rows, numbers)))[0]
            parts.append((numbers, logits.copy()))
        return in_row_order(parts, len(rows.tasks))

    version = openvino.__version__.partition("-")[0]
    return System(run, f"openvino {version}", paths[0].stat().st_size)
