"""Ways to run an engine on a device, and its tasks there."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from petstream.benchmarks.dense_task import DenseTask
from tasks.backbone_shape import BackboneShape
from tasks.pets.kinds import AnyPet
from tasks.pets.random_weights import random_weights
from tests.workers.pets import random_task
from workers.backbone import Backbone
from workers.device_copies import DeviceCopies
from workers.engine import Engine, EngineRow
from workers.grouped.encoder import GroupedEncoder
from workers.grouped.on_device import OnDevice
from workers.loaded_task import LoadedTask
from workers.precision import Precision


@dataclass(frozen=True, slots=True)
class Way:
    """An engine on a device."""

    engine: Engine
    how: OnDevice
    float32_tolerance: float
    """Of logits, from those of the CPU engine."""

    def load(self, task: DenseTask, precision: Precision = "float32") -> LoadedTask:
        """Take a task to the device, as a task manager does."""
        copies = DeviceCopies(self.engine.backbone, self.how.device)
        return copies.of(copies.staged(task.load(self.engine, precision)))


def on_device_engine(
    backbone: Backbone, how: OnDevice, precisions: Sequence[Precision] = ("float32", "bfloat16")
) -> Engine:
    """Return an engine on a device."""
    return Engine(backbone, precisions=precisions, on_device=how)


def grouped_encoder(engine: Engine, precision: Precision = "float32") -> GroupedEncoder:
    """Return an engine's encoder on its device."""
    encoder = engine.encoders[precision]
    assert isinstance(encoder, GroupedEncoder)
    return encoder


def task_with(pet: AnyPet, shape: BackboneShape, seed: int = 0) -> DenseTask:
    """Return a random task with a PET that is none of the variants."""
    dense = random_weights(pet, shape, np.random.default_rng(seed))
    return replace(
        random_task("bitfit", shape, seed=seed), name=f"own-{seed}", pet=pet, dense=dense
    )


def token_ids(seed: int, num_tokens: int, vocab_size: int = 30000) -> NDArray[np.int64]:
    """Token ids of words."""
    return np.random.default_rng(seed).integers(vocab_size // 30, vocab_size, num_tokens)


def answers(
    engine: Engine, task: LoadedTask, lengths: Sequence[int], vocab_size: int = 30000
) -> NDArray[np.float32]:
    """Return a task's logits of rows of these lengths, run in one batch, end to end."""
    rows = [EngineRow(task, token_ids(length, length, vocab_size)) for length in lengths]
    return np.concatenate([logits.reshape(-1) for logits in engine.run(rows)])


def distance(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Return the largest difference."""
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max())


def cuda() -> torch.device:
    """Return the GPU; REQUIRE_GPU=1 makes a missing one a failure, not a skip."""
    if not torch.cuda.is_available():
        (pytest.fail if os.environ.get("REQUIRE_GPU") == "1" else pytest.skip)("no CUDA device")
    return torch.device("cuda")
