import pytest
import torch

from benchmarks.gpu_encoder import (
    Draw,
    Kind,
    Layer,
    LoopOps,
    MergedOps,
    Shape,
    Task,
    encode,
    equal_rows_attention,
    packed_attention,
)
from benchmarks.grouped_encoder import ONE_STREAM, GroupedOps, Schedule
from benchmarks.task_operators import MaskForm
from gpu_ops.spans import Span

SHAPE = Shape(num_layers=2, hidden=64, num_heads=2, intermediate=128)
MIXES: dict[str, list[Kind]] = {
    "all": ["lora", "bitfit", "adapter", "diff", "mask", "lora"],
    "masks": ["mask", "mask"],
}
SCHEDULES = [
    ONE_STREAM,
    Schedule("grouped", 2),
    Schedule("grouped", 3),
    Schedule("per task", 1),
    Schedule("per task", 4),
]


def batch(mix: str, tokens: int, draw: Draw) -> tuple[list[Layer], list[Task]]:
    """Draw a backbone, and tasks of so many tokens each."""
    backbone = [draw.layer() for _ in range(SHAPE.num_layers)]
    tasks = [
        Task(
            kind,
            [draw.task_layer(kind) for _ in range(SHAPE.num_layers)],
            Span(number * tokens, (number + 1) * tokens),
        )
        for number, kind in enumerate(MIXES[mix])
    ]
    return backbone, tasks


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("rows_per_task", [1, 2])
@pytest.mark.parametrize("row_len", [3, 40])
@pytest.mark.parametrize("mask_as", ["bits", "sparse"])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_all_ways_compute_the_same(
    mix: str, rows_per_task: int, row_len: int, mask_as: MaskForm, schedule: Schedule
) -> None:
    """What the benchmark compares are different ways to the same states."""
    draw = Draw(SHAPE, "cpu", torch.float32)
    backbone, tasks = batch(mix, rows_per_task * row_len, draw)
    hidden = draw.normal(len(tasks) * rows_per_task * row_len, SHAPE.hidden, scale=1.0)
    packed = packed_attention([row_len] * rows_per_task * len(tasks), SHAPE.num_heads, "cpu")
    alone = equal_rows_attention(rows_per_task, SHAPE.num_heads)
    grouped = GroupedOps(backbone, tasks, len(hidden), mask_as, schedule)

    merged = torch.cat(
        [encode(hidden[slice(*task.tokens)], 2, MergedOps(backbone, task), alone) for task in tasks]
    )
    looped = encode(hidden, 2, LoopOps(backbone, tasks), packed)
    found = encode(hidden, 2, grouped, packed)

    torch.testing.assert_close(looped, merged, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found, merged, rtol=1e-4, atol=1e-4)
