"""Compiled operators against torch's, inside the engine: which part of the time each takes.

    python benchmarks/bench_compiled_operators.py [--json] [--backbone minilm-l6] [--repeats 7]

One engine runs the same batches with all of torch's operators and with all compiled ones in turns,
on one thread, in its CPU time. Figures are medians of the ratios of passes side by side: the time
of the compiled way over that of torch's.
"""

import argparse
import dataclasses
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np

from gpu_ops.compiled.library import load
from petstream.benchmarks.document import Goal, make_document
from petstream.benchmarks.engine.cases import MIXES, U4_8, U32_128, U64_128, LengthMix
from petstream.settings import load_settings
from tasks.pets.adapter import Adapter
from tasks.pets.bitfit import BitFit
from tasks.pets.diff import Diff
from tasks.pets.ia3 import Ia3
from tasks.pets.kinds import AnyPet
from tasks.pets.lora import Lora
from tasks.pets.mask import Mask
from workers.backbone import Backbone
from workers.backbone_store import BackboneStore
from workers.encoder import Encoder
from workers.engine import Engine, EngineRow
from workers.expanded_weights import ExpandedWeights
from workers.operators import Operators, available, operators
from workers.profiler import load_random_task
from workers.torch_dtypes import TORCH_DTYPES

NUM_ROWS = 64
NUM_TASKS = 16
SEED = 5
ATTENTION_GOAL = 0.43
"""150 ms where torch takes 350."""

PETS: tuple[AnyPet, ...] = (
    Mask(),
    Diff(),
    Lora(rank=8, alpha=16.0),
    Adapter(placement="houlsby", bottleneck=64, activation="gelu"),
    BitFit(),
    Ia3(),
)
WHOLE = "whole pass"
LEAST_SHARE = 0.005

Seconds = defaultdict[str, float]


def timed(ops: Operators, spent_s: Seconds) -> Operators:
    """Return operators that add up the time that each takes."""

    def wrap(name: str, run: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*arguments: object) -> object:
            started_s = time.thread_time()
            result = run(*arguments)
            spent_s[name] += time.thread_time() - started_s
            return result

        return measured

    by_name = {field.name: getattr(ops, field.name) for field in dataclasses.fields(ops)}
    # Some are objects that are asked more than to run: their share is that of the whole pass.
    untimed = ("compiled", "library", "add_low_rank_", "add_bottleneck_", "vectors")
    wrapped: dict[str, Any] = {
        name: wrap(name, run) for name, run in by_name.items() if name not in untimed
    }
    return dataclasses.replace(ops, **wrapped)


def both_ways(engine: Engine) -> dict[str, Operators]:
    """Return all operators of torch, and all that are compiled with torch's for the rest."""
    library = load()
    assert library is not None, "not compiled: run `python -m gpu_ops.compiled.build`"
    names = available(engine.backbone, library)
    values = ExpandedWeights(TORCH_DTYPES["float32"]).values
    return {
        "torch": operators(engine.backbone, values, None, ()),
        "compiled": operators(engine.backbone, values, library, names),
    }


def batch(engine: Engine, mix: LengthMix, pet: AnyPet | None) -> list[EngineRow]:
    """Return rows of a mix of lengths; with a PET a row to a task."""
    rng = np.random.default_rng(SEED)
    num_rows = NUM_ROWS if pet is None else NUM_TASKS
    tasks = [load_random_task(engine, None)] * num_rows
    if pet is not None:
        tasks = [load_random_task(engine, pet, seed=seed) for seed in range(num_rows)]
    vocabulary = engine.backbone.shape.vocab_size
    return [
        EngineRow(task, rng.integers(1000, vocabulary, length))
        for task, length in zip(tasks, mix.draw(rng, num_rows), strict=True)
    ]


def compare(engine: Engine, rows: list[EngineRow], repeats: int) -> dict[str, float]:
    """Return compiled over torch for the whole pass and for each operator that ran."""
    encoder = engine.encoders["float32"]
    assert isinstance(encoder, Encoder)
    chosen, ways = encoder.operators, both_ways(engine)
    spent_s: dict[str, list[Seconds]] = {way: [] for way in ways}
    for _ in range(1 + repeats):
        for way, ops in ways.items():
            of_pass: Seconds = defaultdict(float)
            encoder.operators = timed(ops, of_pass)
            started_s = time.process_time()
            engine.run(rows)
            of_pass[WHOLE] = time.process_time() - started_s
            spent_s[way].append(of_pass)
    encoder.operators = chosen
    pairs = list(zip(spent_s["torch"], spent_s["compiled"], strict=True))[1:]
    # An operator that had nothing to do took no share of the pass.
    names = [n for n, spent in pairs[0][0].items() if spent > LEAST_SHARE * pairs[0][0][WHOLE]]
    return {name: statistics.median(new[name] / old[name] for old, new in pairs) for name in names}


def main() -> None:
    """Print the figures for people, or one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--backbone", default="minilm-l6")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    folder = BackboneStore(load_settings().models_dir).fetch(options.backbone)
    engine = Engine(Backbone.load(folder), threads=1)
    cases: list[tuple[str, LengthMix, AnyPet | None]] = [("no PET", mix, None) for mix in MIXES]
    cases += [(pet.kind, mix, pet) for pet in PETS for mix in (U4_8, U64_128)]
    rows: list[dict[str, Any]] = []
    for name, mix, pet in cases:
        found = compare(engine, batch(engine, mix, pet), options.repeats)
        rows.append({"tasks": name, "lengths": mix.name, "compiled_over_torch": found})
        if not options.json:
            figures = ", ".join(f"{operator} {ratio:.2f}" for operator, ratio in found.items())
            print(f"{name}, {mix.name}: {figures}")
    engine.close()
    long = next(row for row in rows if row["lengths"] == U32_128.name)
    attention = long["compiled_over_torch"]["attention"]
    goal = Goal("P4-attention-saved", 1 - ATTENTION_GOAL, 1 - attention, "of torch's time")
    if options.json:
        print(json.dumps(make_document(rows, [goal]), indent=2))
    else:
        print(f"{goal.id}: {goal.value:.2f} (goal {goal.target:.2f}, met: {goal.met})")


if __name__ == "__main__":
    main()
