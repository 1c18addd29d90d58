"""Measures what batches cost on this machine: alpha for the backbone, beta for each PET kind.

Alpha is the time of a batch of one task without any PET; beta is what the same batch takes longer
with one (PetS, section 5, where alpha is profiled with the PET calls switched off). Both are taken
in turns at each point of the grid, so that a slow moment of the machine falls on all alike.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tasks.description import BackboneReference, LevelDescription, TaskDescription
from tasks.pets.adapter import Adapter
from tasks.pets.bitfit import BitFit
from tasks.pets.diff import Diff
from tasks.pets.ia3 import Ia3
from tasks.pets.kinds import AnyPet
from tasks.pets.lora import Lora
from tasks.pets.mask import Mask
from tasks.pets.random_weights import random_weights
from tasks.site_ops import PetWeights
from workers.device_copies import DeviceCopies
from workers.engine import Engine, EngineRow
from workers.loaded_task import LoadedTask
from workers.precision import Precision

NUM_ROWS = (1, 4, 16, 64, 128)
SEQ_LENS = (8, 16, 32, 64, 128)

PROFILED_PETS: tuple[AnyPet, ...] = (
    Adapter(placement="houlsby", bottleneck=64, activation="gelu"),
    BitFit(),
    Diff(),
    Ia3(),
    Lora(rank=8, alpha=16.0),
    Mask(),
)
"""One of each kind, sized as in the papers and as `petstream train` makes them."""

_NUM_LABELS = 64


@dataclass(frozen=True, slots=True)
class Measurement:
    """Median latencies in milliseconds, each by rows, then by tokens per row."""

    alpha_ms: list[list[float]]
    beta_ms: dict[str, list[list[float]]]
    """By PET kind; 0 where the difference was less than the noise."""


def measure_costs(
    engine: Engine,
    *,
    precision: Precision | None = None,
    num_rows: Sequence[int] = NUM_ROWS,
    seq_lens: Sequence[int] = SEQ_LENS,
    repeats: int = 3,
    on_point: Callable[[int, int], None] = lambda _done, _total: None,
) -> Measurement:
    """Measure every point of the grid `repeats` times, after one run to warm up.

    Args:
        engine: Of the backbone to be measured, with the threads it will serve with.
        precision: What is computed in. None: the engine's first.
        num_rows: Batch sizes.
        seq_lens: Tokens per row.
        repeats: Runs of which the median is taken.
        on_point: Told how many tokens of how many were run, after each point.
    """
    bare = load_random_task(engine, None, precision=precision)
    tasks = {pet.kind: load_random_task(engine, pet, precision=precision) for pet in PROFILED_PETS}
    total = sum(num_rows) * sum(seq_lens)
    done = 0
    alpha: list[list[float]] = []
    beta: dict[str, list[list[float]]] = {kind: [] for kind in tasks}
    for rows in num_rows:
        alpha.append([])
        for of_kind in beta.values():
            of_kind.append([])
        for seq_len in seq_lens:
            bare_ms, *pet_ms = _medians_ms(engine, [bare, *tasks.values()], rows, seq_len, repeats)
            alpha[-1].append(bare_ms)
            for kind, with_pet_ms in zip(tasks, pet_ms, strict=True):
                beta[kind][-1].append(max(0.0, with_pet_ms - bare_ms))
            done += rows * seq_len
            on_point(done, total)
    return Measurement(alpha, beta)


def load_random_task(
    engine: Engine, pet: AnyPet | None, *, seed: int = 0, precision: Precision | None = None
) -> LoadedTask:
    """Load a task with random weights, or one without PET: time does not depend on values."""
    rng = np.random.default_rng(seed)
    shape = engine.backbone.shape
    described = pet or BitFit()
    sites = {}
    if pet is not None:
        sites = pet.decode(shape, pet.encode(shape, random_weights(pet, shape, rng)))
    weights = PetWeights(
        kind=described.kind,
        sites=sites,
        head_weight=rng.standard_normal((_NUM_LABELS, shape.hidden_size), np.float32),
        head_bias=np.zeros(_NUM_LABELS, np.float32),
        num_bytes=0,
    )
    level = LevelDescription(
        level=0,
        backbone=BackboneReference(name="profiled", digest=engine.backbone.digest),
        pet=described,
        pooling="mean",
        max_tokens=shape.max_positions,
        file="level-0.safetensors",
        sha256="0" * 64,
    )
    description = TaskDescription(
        format=1,
        name=f"profiled-{pet.kind if pet else 'bare'}-{seed}",
        revision=1,
        kind="single_label",
        labels=tuple(f"label-{number}" for number in range(_NUM_LABELS)),
        takes_pair=False,
        source="random",
        licence="none",
        levels=(level,),
    )
    task = engine.load_task(description, 0, weights, precision)
    if engine.device.type == "cpu":
        return task
    return DeviceCopies(engine.backbone, engine.device).of(task)


def _medians_ms(
    engine: Engine, tasks: Sequence[LoadedTask], num_rows: int, seq_len: int, repeats: int
) -> list[float]:
    rng = np.random.default_rng(num_rows * seq_len)
    ids = rng.integers(1, engine.backbone.shape.vocab_size, (num_rows, seq_len))
    return medians_ms(engine, [[EngineRow(task, row) for row in ids] for task in tasks], repeats)


def medians_ms(engine: Engine, batches: Sequence[Sequence[EngineRow]], repeats: int) -> list[float]:
    """Time batches in turns, after a run of each to warm up.

    Args:
        engine: What runs them; `run` returns when the logits are in host memory.
        batches: Compared with each other.
        repeats: Runs of which the median is taken.

    Returns:
        The median of each batch, milliseconds of the clock.
    """
    for batch in batches:
        engine.run(batch)
    times_ms = np.empty((repeats, len(batches)))
    for repeat in range(repeats):
        for number, batch in enumerate(batches):
            started_s = time.perf_counter()
            engine.run(batch)
            times_ms[repeat, number] = 1000 * (time.perf_counter() - started_s)
    medians: list[float] = np.median(times_ms, axis=0).tolist()
    return medians
