"""The batches of `bench_gpu.py`: 64 tasks of some kinds, and the encoder that runs them."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch

from benchmarks.gpu_encoder import (
    BERT_BASE,
    Draw,
    Kind,
    Layer,
    MergedOps,
    Ops,
    Task,
    encode,
    equal_rows_attention,
    packed_attention,
)
from gpu_ops.spans import Span

NUM_TASKS = 64
ROW_LEN = 64
ROWS_PER_TASK = (1, 8, 32)
"""Queries of each task in a batch."""
DTYPE = torch.bfloat16
MIX: tuple[Kind, ...] = ("lora", "bitfit", "adapter", "diff")
MIXES: Mapping[str, tuple[Kind, ...]] = {
    "lora+bitfit+adapter+diff": MIX,
    "with masks": (*MIX, "mask"),
    "masks": ("mask",),
    "lora": ("lora",),
}


def draw_tasks(draw: Draw, kinds: Sequence[Kind], tokens: int) -> list[Task]:
    """Draw the tasks of a batch, the kinds in turn."""
    return [
        Task(
            kinds[number % len(kinds)],
            [draw.task_layer(kinds[number % len(kinds)]) for _ in range(BERT_BASE.num_layers)],
            Span(number * tokens, (number + 1) * tokens),
        )
        for number in range(NUM_TASKS)
    ]


class EncoderRun:
    """A mix of tasks in all ways."""

    def __init__(self, backbone: Sequence[Layer], tasks: Sequence[Task], rows: int) -> None:
        self.backbone = backbone
        self.tasks = tasks
        num_tokens = NUM_TASKS * rows * ROW_LEN
        self.hidden = torch.randn(num_tokens, BERT_BASE.hidden, device="cuda", dtype=DTYPE)
        heads = BERT_BASE.num_heads
        self._packed = packed_attention([ROW_LEN] * (NUM_TASKS * rows), heads, "cuda")
        self._alone = equal_rows_attention(rows, heads)

    def run(self, ops: Ops) -> torch.Tensor:
        """Run all tasks at once."""
        return encode(self.hidden, BERT_BASE.num_layers, ops, self._packed)

    def merged_ways(self) -> list[Callable[[], torch.Tensor]]:
        """Return the run of each task's merged model on its rows."""
        ways: list[Callable[[], torch.Tensor]] = []
        for task in self.tasks:
            ops, part = MergedOps(self.backbone, task), self.hidden[slice(*task.tokens)]
            ways.append(partial(encode, part, BERT_BASE.num_layers, ops, self._alone))
        return ways
