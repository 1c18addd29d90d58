"""What a task occupies in memory, beside what PetS's published code takes for the same task."""

import math

import pytest

from tasks.backbone_shape import LINEAR_SITES
from tasks.pets.random_weights import DENSITY
from tests.workers.pets import random_task
from workers.engine import Engine


@pytest.mark.parametrize(
    ("variant", "most"), [("houlsby", 0.55), ("mask", 0.3), ("diff", 0.75), ("bitfit", 0.9)]
)
def test_a_task_takes_less_memory_than_in_pets(
    small_engine: Engine, variant: str, most: float
) -> None:
    """PetS: float32; masks and diffs as CSR, int32; whole biases and norms. Heads aside."""
    shape = small_engine.backbone.shape
    sizes = [shape.linear_shape(site) for site in LINEAR_SITES]
    num_rows = shape.num_layers * sum(num_out for num_out, _ in sizes)
    num_weights = shape.num_layers * sum(map(math.prod, sizes))
    norms = 4 * shape.num_layers * shape.hidden_size
    adapters = 2 * shape.num_layers * (2 * 64 * shape.hidden_size + 64 + shape.hidden_size)
    in_pets = {
        "houlsby": 4 * (adapters + norms),
        "mask": round(8 * DENSITY["mask"] * num_weights) + 8 * num_rows,
        "diff": round(8 * DENSITY["diff"] * num_weights) + 8 * num_rows + 4 * (num_rows + norms),
        "bitfit": 4 * (num_rows + norms),
    }[variant]
    task = random_task(variant, shape)

    loaded = task.load(small_engine)

    head = task.head_weight.nbytes + task.head_bias.nbytes
    assert loaded.num_bytes - head < most * in_pets
