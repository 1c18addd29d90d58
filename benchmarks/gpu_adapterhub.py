"""AdapterHub's `BatchSplit` on a CUDA device, in its own environment: one time for each line read.

    .venv-oracles/bin/python -m benchmarks.gpu_adapterhub NUM_TASKS ROW_LEN BOTTLENECK

BERT-base with random weights in bfloat16, a Houlsby adapter for each task, a row of each task in
the batch, eager, as its users run it. Says `{"ready": VERSION}` first; then, for each line of
standard input, `{"ms": MILLISECONDS}` by events of the device. `bench_gpu.py` asks it.
"""

import json
import sys
from typing import Any

import adapters  # type: ignore[import-not-found]
import torch
from adapters import BatchSplit, DoubleSeqBnConfig
from transformers import BertConfig, BertModel

from benchmarks.gpu_timing import time_ms


def main() -> None:
    """Build the model and answer until there is nothing more to read."""
    num_tasks, row_len, bottleneck = map(int, sys.argv[1:])
    config = BertConfig()
    model: Any = BertModel(config, add_pooling_layer=False)
    adapters.init(model)
    names = [f"task{number}" for number in range(num_tasks)]
    factor = config.hidden_size / bottleneck
    for name in names:
        model.add_adapter(
            name, config=DoubleSeqBnConfig(non_linearity="gelu", reduction_factor=factor)
        )
    model.active_adapters = BatchSplit(*names, batch_sizes=[1] * num_tasks)
    model = model.to("cuda", torch.bfloat16).eval()
    ids = torch.randint(1000, 30000, (num_tasks, row_len), device="cuda")
    with torch.inference_mode():
        model(input_ids=ids)
        print(json.dumps({"ready": f"adapters {adapters.__version__}"}), flush=True)
        for _ in sys.stdin:
            print(json.dumps({"ms": time_ms(lambda: model(input_ids=ids))}), flush=True)


if __name__ == "__main__":
    main()
