"""How often a captured pass is used again, by traffic: counts, which no device is needed for.

    python benchmarks/bench_graph_replays.py [--json] [--batches 300]

A worker on a GPU captures a pass when its like comes for the second time. `bench_gpu.py` times a
batch that comes again and again, so it shows what a replay gains; this shows how often there is
one. Batches are drawn at random: so many rows (normal, deviation a third), lengths uniform in 8 to
40 tokens, each row's task uniform or by Zipf's law. All 64 tasks have their slots before.
"""

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from petstream.benchmarks.document import make_document
from petstream.benchmarks.synthetic_backbone import random_backbone
from tasks.backbone_shape import BackboneShape
from workers.engine import Engine, EngineRow
from workers.grouped.encoder import GroupedEncoder
from workers.grouped.on_device import OnDevice
from workers.profiler import PROFILED_PETS, load_random_task

SHAPE = BackboneShape(1, 64, 2, 128, 200, 128)
"""What is launched depends on layers only in number, and on widths not at all."""
NUM_TASKS = 64
LENGTHS = (8, 40)
SIX_KINDS = ("adapter", "bitfit", "diff", "ia3", "lora", "mask")


@dataclass(frozen=True, slots=True)
class Traffic:
    """What is asked."""

    kinds: tuple[str, ...]
    """Of the tasks' PETs, in turn."""
    mean_rows: int
    """Of a batch."""
    exponent: float = 0.0
    """Of Zipf's law; 0: all tasks alike."""


TRAFFIC = (
    Traffic(("lora",), 8),
    Traffic(("lora",), 32),
    Traffic(("lora",), 200),
    Traffic(SIX_KINDS, 8),
    Traffic(SIX_KINDS, 32),
    Traffic(SIX_KINDS, 32, exponent=1.0),
    Traffic(SIX_KINDS, 200),
)


def measure(traffic: Traffic, num_batches: int) -> dict[str, Any]:
    """Run batches on an engine whose device is the CPU, and count."""
    engine = Engine(random_backbone(SHAPE, seed=0), on_device=OnDevice(torch.device("cpu")))
    pets = {pet.kind: pet for pet in PROFILED_PETS}
    tasks = [
        load_random_task(engine, pets[traffic.kinds[n % len(traffic.kinds)]], seed=n)
        for n in range(NUM_TASKS)
    ]
    engine.run([EngineRow(task, np.arange(1, 1 + LENGTHS[0])) for task in tasks])
    encoder = engine.encoders["float32"]
    assert isinstance(encoder, GroupedEncoder)
    graphs = encoder.graphs
    captures, replays = graphs.num_captures, graphs.num_replays
    for rows in draw_batches(traffic, num_batches):
        engine.run(
            [EngineRow(tasks[task], np.arange(1, 1 + num_tokens)) for task, num_tokens in rows]
        )
    engine.close()
    captures = graphs.num_captures - captures
    replays = graphs.num_replays - replays - captures
    return {
        "kinds": list(traffic.kinds),
        "rows_per_batch": traffic.mean_rows,
        "zipf_exponent": traffic.exponent,
        "batches": num_batches,
        "captures": captures,
        "replays": replays,
        "share_replayed": round(replays / num_batches, 3),
    }


def draw_batches(traffic: Traffic, num_batches: int) -> Iterator[Sequence[tuple[int, int]]]:
    """Yield the rows of each batch, always the same: (task, tokens)."""
    rng = random.Random(1)
    weights = [1 / (rank + 1) ** traffic.exponent for rank in range(NUM_TASKS)]
    rng.shuffle(weights)
    for _ in range(num_batches):
        num_rows = max(1, round(rng.gauss(traffic.mean_rows, traffic.mean_rows / 3)))
        tasks = rng.choices(range(NUM_TASKS), weights, k=num_rows)
        yield [(task, rng.randint(*LENGTHS)) for task in tasks]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="How often a captured pass is used again.")
    parser.add_argument("--json", action="store_true", help="one JSON document on the last line")
    parser.add_argument("--batches", type=int, default=300)
    options = parser.parse_args()
    rows = [measure(traffic, options.batches) for traffic in TRAFFIC]
    if options.json:
        print(json.dumps(make_document(rows, goals=[])))
        return
    print(f"{'kinds':10}{'rows':>6}{'zipf':>6}{'batches':>9}{'captures':>10}{'replays':>9}")
    for row in rows:
        kinds = row["kinds"][0] if len(row["kinds"]) == 1 else f"{len(row['kinds'])} kinds"
        print(
            f"{kinds:10}{row['rows_per_batch']:>6}{row['zipf_exponent']:>6}{row['batches']:>9}"
            f"{row['captures']:>10}{row['replays']:>9}"
        )


if __name__ == "__main__":
    main()
