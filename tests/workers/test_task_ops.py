"""What a task occupies in memory, beside what PetS's published code takes for the same task."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tasks.backbone_shape import LINEAR_SITES
from tasks.pets.random_weights import DENSITY
from tests.workers.pets import PETS, random_task
from workers.engine import Engine, EngineRow
from workers.task_tensors import in_one_piece, replaced, tensors_within


@pytest.mark.parametrize(
    ("variant", "most"), [("houlsby", 0.55), ("mask", 0.3), ("diff", 0.5), ("bitfit", 0.45)]
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


@pytest.mark.parametrize("variant", PETS)
def test_what_is_held_in_half_the_bytes_answers_bit_for_bit_as_in_whole(
    small_engine: Engine, variant: str
) -> None:
    """Every kind, with few rows and with many; the values are those of a float16 file."""
    task = random_task(variant, small_engine.backbone.shape).load(small_engine)
    wide = replace(task, ops=replaced(task.ops, widened))
    ids = np.random.default_rng(0).integers(1000, 20_000, 80)

    for num_tokens in (7, 80):
        found, expected = (
            small_engine.run([EngineRow(of, ids[:num_tokens])])[0] for of in (task, wide)
        )
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("variant", ["bitfit", "lora", "ia3", "layer-norm", "prefix", "compacter"])
def test_what_float16_would_round_stays_float32(small_engine: Engine, variant: str) -> None:
    """Half the bytes are held only where nothing is lost."""
    exact = random_task(variant, small_engine.backbone.shape)
    dense = {name: values * np.float32(1 + 2**-12) for name, values in exact.dense.items()}

    ops = replace(exact, dense=dense).load(small_engine).ops

    parts = (*ops.products.values(), *ops.norms.values(), *ops.prefixes.values())
    assert {tensor.dtype for tensor in tensors_within(parts)} == {torch.float32}


def test_tensors_in_one_piece_are_equal_aligned_and_apart() -> None:
    """Of any type and size, empty ones too; a change of one is not seen in another."""
    tensors = [
        torch.arange(5, dtype=torch.int16),
        torch.randn(3, 7),
        torch.empty(0, dtype=torch.int64),
        torch.randn(2, 9).half(),
    ]

    copies = in_one_piece(tensors)

    assert len({copy.untyped_storage().data_ptr() for copy in copies}) == 1
    assert all(copy.data_ptr() % 64 == 0 for copy in copies)
    for number, copy in enumerate(copies):
        copy.zero_()
        assert not copy.any()
        copy.copy_(tensors[number])
    for tensor, copy in zip(tensors, copies, strict=True):
        assert copy.dtype == tensor.dtype
        assert copy.equal(tensor)


def widened(tensor: torch.Tensor) -> torch.Tensor:
    """Return it in the types that ops compute with."""
    wide = {torch.float16: torch.float32, torch.int16: torch.int32}
    return tensor.to(wide.get(tensor.dtype, tensor.dtype))
