"""Merged models as ONNX files, which ONNX Runtime and OpenVINO both read."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from petstream.benchmarks.engine.cases import DISTINCT_WEIGHTS, Pooling
from petstream.benchmarks.engine.systems.task_model import load_task_model
from petstream.benchmarks.engine.weight_files import merged_folder

INPUTS = ("input_ids", "attention_mask")


def onnx_files(weights: Path, pooling: Pooling) -> Sequence[Path]:
    """Return the file of each merged model; write those that are not there yet."""
    name = f"model-{pooling}.onnx"
    paths = [merged_folder(weights, n) / name for n in range(DISTINCT_WEIGHTS)]
    for number, path in enumerate(paths):
        if not path.is_file():
            _export(weights, number, pooling, path)
    return paths


def _export(weights: Path, number: int, pooling: Pooling, path: Path) -> None:
    model = load_task_model(weights, number, pooling)
    # A padded row, or attention would be traced without its mask.
    ids = torch.full((2, 8), 5)
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    partial = path.with_suffix(".partial")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (ids, mask),
            str(partial),
            input_names=list(INPUTS),
            output_names=["logits"],
            dynamic_axes={name: {0: "rows", 1: "tokens"} for name in INPUTS},
            opset_version=17,
            dynamo=False,
        )
    partial.rename(path)
