"""PEFT and AdapterHub on a CUDA device, each beside the same work grouped.

Both run transformers' BertModel, with embeddings and without a head, in eager mode, as their users
do: neither can be captured in a CUDA graph.
"""

import json
import statistics
import subprocess
from collections.abc import Iterator
from typing import Any

import torch

from benchmarks.gpu_encoder import BERT_BASE, BOTTLENECK, Draw, Kind
from benchmarks.gpu_mixes import DTYPE, NUM_TASKS, ROW_LEN, EncoderRun, draw_tasks
from benchmarks.gpu_timing import Way, captured, medians_ms
from benchmarks.grouped_encoder import GroupedOps
from petstream.benchmarks.engine.environments import ENVIRONMENTS, ROOT

PEER_REPEATS = 5


def peft_rows() -> Iterator[dict[str, Any]]:
    """Measure PEFT's `adapter_names` on 64 LoRA tasks, a row each, where PEFT is installed."""
    try:
        from peft import LoraConfig, get_peft_model
        from transformers import BertConfig, BertModel
    except ImportError:
        return
    config = LoraConfig(r=8, target_modules=["query", "key", "value"], init_lora_weights=False)
    model = get_peft_model(BertModel(BertConfig(), add_pooling_layer=False), config, "task0")
    for number in range(1, NUM_TASKS):
        model.add_adapter(f"task{number}", config)
    model = model.to("cuda", DTYPE).eval()
    ids = torch.randint(1000, 30000, (NUM_TASKS, ROW_LEN), device="cuda")
    names = [f"task{number}" for number in range(NUM_TASKS)]
    ways = _grouped_ways("lora") | {"peer": lambda: model(input_ids=ids, adapter_names=names)}
    yield _row("peft", "lora", medians_ms(ways, PEER_REPEATS))


def adapterhub_rows() -> Iterator[dict[str, Any]]:
    """Measure AdapterHub's `BatchSplit` on 64 adapters, a row each, where `make bench-env` ran.

    Raises:
        RuntimeError: If its process ends.
    """
    environment = ENVIRONMENTS["adapterhub"]
    if not environment.is_built:
        return
    sizes = map(str, (NUM_TASKS, ROW_LEN, BOTTLENECK))
    with subprocess.Popen(
        [str(environment.python), "-m", "benchmarks.gpu_adapterhub", *sizes],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        _answer(child.stdout.readline())
        ways = _grouped_ways("adapter")
        times_ms: dict[str, list[float]] = {}
        for _ in range(PEER_REPEATS):
            child.stdin.write("\n")
            child.stdin.flush()
            times_ms.setdefault("peer", []).append(_answer(child.stdout.readline())["ms"])
            for name, time_ms in medians_ms(ways, 1).items():
                times_ms.setdefault(name, []).append(time_ms)
        child.stdin.close()
    medians = {name: statistics.median(times) for name, times in times_ms.items()}
    yield _row("adapterhub", "adapter", medians)


def _answer(line: str) -> dict[str, Any]:
    if not line:
        raise RuntimeError("AdapterHub's process ended; what it said stands above")
    answer: dict[str, Any] = json.loads(line)
    return answer


def _grouped_ways(kind: Kind) -> dict[str, Way]:
    draw = Draw(BERT_BASE, "cuda", DTYPE)
    backbone = [draw.layer() for _ in range(BERT_BASE.num_layers)]
    run = EncoderRun(backbone, draw_tasks(draw, (kind,), ROW_LEN), 1)
    grouped = GroupedOps(backbone, run.tasks, len(run.hidden))
    return {
        "grouped": captured(lambda: run.run(grouped)),
        "grouped, not captured": lambda: run.run(grouped),
    }


def _row(part: str, name: str, times_ms: dict[str, float]) -> dict[str, Any]:
    peer_ms = times_ms["peer"]
    return {
        "part": part,
        "name": name,
        "tasks": NUM_TASKS,
        "rows_per_task": 1,
        "row_len": ROW_LEN,
        "peer_ms": round(peer_ms, 2),
        "over_peer": round(peer_ms / times_ms["grouped"], 2),
        "not_captured_over_peer": round(peer_ms / times_ms["grouped, not captured"], 2),
    }
