import pytest
import torch

from benchmarks.gpu_encoder import (
    Draw,
    GroupedOps,
    Kind,
    LoopOps,
    MergedOps,
    Shape,
    Task,
    encode,
    equal_rows_attention,
    packed_attention,
)
from gpu_ops.spans import Span

SHAPE = Shape(num_layers=2, hidden=64, num_heads=2, intermediate=128)
MIXES: dict[str, list[Kind]] = {
    "all": ["lora", "bitfit", "adapter", "diff", "mask", "lora"],
    "masks": ["mask", "mask"],
}


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("rows_per_task", [1, 2])
@pytest.mark.parametrize("row_len", [3, 40])
@pytest.mark.parametrize("mask_as", ["bits", "sparse"])
def test_all_ways_compute_the_same(
    mix: str, rows_per_task: int, row_len: int, mask_as: str
) -> None:
    """What the benchmark compares are different ways to the same states."""
    draw = Draw(SHAPE, "cpu", torch.float32)
    backbone = [draw.layer() for _ in range(SHAPE.num_layers)]
    tokens = rows_per_task * row_len
    tasks = [
        Task(
            kind,
            [draw.task_layer(kind) for _ in range(SHAPE.num_layers)],
            Span(number * tokens, (number + 1) * tokens),
        )
        for number, kind in enumerate(MIXES[mix])
    ]
    hidden = draw.normal(len(tasks) * tokens, SHAPE.hidden, scale=1.0)
    packed = packed_attention([row_len] * rows_per_task * len(tasks), SHAPE.num_heads, "cpu")
    alone = equal_rows_attention(rows_per_task, SHAPE.num_heads)
    grouped = GroupedOps(
        backbone, tasks, len(hidden), mask_as="bits" if mask_as == "bits" else "sparse"
    )

    merged = torch.cat(
        [encode(hidden[slice(*task.tokens)], 2, MergedOps(backbone, task), alone) for task in tasks]
    )
    looped = encode(hidden, 2, LoopOps(backbone, tasks), packed)
    found = encode(hidden, 2, grouped, packed)

    torch.testing.assert_close(looped, merged, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found, merged, rtol=1e-4, atol=1e-4)
