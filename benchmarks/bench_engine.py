"""The packed engine against padded transformers models, the same tasks merged into them.

    python benchmarks/bench_engine.py [--json] [--repeats 5] [--rows 128] [--threads 1]

Both run in this process, in turn, on the same rows: the engine in one call for all tasks, and
transformers one task after another, each on a model with that task's PET merged in, its
rows padded to the longest of them. Every pass is checked: logits within 1e-4 of each other.

With one thread what is measured is CPU time, which other work on the machine hardly changes; with
more it is wall time, for a quiet machine. A row says what share of the engine's time the same
rows take without any PET, too: what the tasks' ops cost.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F
from transformers import PreTrainedModel

from petstream.benchmarks.document import Goal, make_document
from petstream.benchmarks.random_task import RandomTask, without_pet
from petstream.settings import load_settings
from tests.workers.dense_reference import merged_model, plain_model
from tests.workers.pets import random_task
from workers.backbone import Backbone
from workers.backbone_store import BackboneStore
from workers.engine import Engine, EngineRow

KINDS = ("lora", "houlsby", "mask", "diff", "bitfit", "ia3")
WORKLOADS = {"intents": (12, 5), "sentences": (32, 8)}
"""Name -> mean and standard deviation of the rows' lengths in tokens."""
MAX_MODELS = 12
"""Merged models held at once, used in turn: two of each kind. 64 would take gigabytes."""
TOLERANCE = 1e-4
GOALS = {1: 1.0, 8: 2.0, 64: 2.0}
"""Tasks -> the least ratio, for the mix of kinds."""


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the table."""

    backbone: str
    workload: str
    tasks: int
    kinds: tuple[str, ...]

    @property
    def pets(self) -> str:
        """Which PETs the tasks have."""
        return self.kinds[0] if len(self.kinds) == 1 else "mix"


class Peer:
    """The tasks as merged transformers models."""

    def __init__(self, folder: Path) -> None:
        self._plain = plain_model(folder)
        self._models: dict[str, PreTrainedModel] = {}

    def model(self, task: RandomTask) -> PreTrainedModel:
        """Return the task's model; all of them share one table of embeddings."""
        if task.name not in self._models:
            self._models[task.name] = merged_model(self._plain, task)
        return self._models[task.name]

    def run(
        self, rows: Sequence[tuple[RandomTask, NDArray[np.int64]]]
    ) -> list[NDArray[np.float32]]:
        """Return each row's logits; the rows of a task stand together."""
        logits: list[NDArray[np.float32]] = []
        start = 0
        while start < len(rows):
            task = rows[start][0]
            end = start
            while end < len(rows) and rows[end][0] is task:
                end += 1
            logits += self._run_task(task, [ids for _, ids in rows[start:end]])
            start = end
        return logits

    def _run_task(
        self, task: RandomTask, token_rows: Sequence[NDArray[np.int64]]
    ) -> list[NDArray[np.float32]]:
        lens = torch.tensor([len(ids) for ids in token_rows])
        padded = torch.zeros(len(token_rows), int(lens.max()), dtype=torch.int64)
        for row, ids in zip(padded, token_rows, strict=True):
            row[: len(ids)] = torch.from_numpy(ids)
        mask = torch.arange(padded.shape[1]) < lens[:, None]
        with torch.inference_mode():
            hidden = self.model(task)(padded, attention_mask=mask).last_hidden_state
            pooled = (hidden * mask[:, :, None]).sum(1) / lens[:, None]
            head = torch.from_numpy(task.head_weight), torch.from_numpy(task.head_bias)
            return list(F.linear(pooled, *head).numpy())


def draw_rows(
    case: Case, engine: Engine, num_rows: int
) -> list[tuple[RandomTask, NDArray[np.int64]]]:
    """Draw the rows of a case: tasks in turn, as many rows each; lengths by the workload."""
    rng = np.random.default_rng(5)
    mean, spread = WORKLOADS[case.workload]
    lens = np.clip(rng.normal(mean, spread, num_rows).astype(np.int64), 3, 128)
    distinct = [
        random_task(case.kinds[i % len(case.kinds)], engine.backbone.shape, seed=i)
        for i in range(min(case.tasks, MAX_MODELS))
    ]
    numbers = np.sort(np.arange(num_rows) % case.tasks)
    ids = [rng.integers(1000, 30000, row_len) for row_len in lens]
    # Beyond MAX_MODELS tasks repeat, but never beside themselves: each stretch is a batch.
    return [(distinct[n % len(distinct)], row) for n, row in zip(numbers, ids, strict=True)]


def measure(case: Case, engine: Engine, peer: Peer, options: argparse.Namespace) -> dict[str, Any]:
    """Run a case: engine, transformers and the bare backbone in turn, `repeats` times."""
    clock = time.process_time if options.threads == 1 else time.perf_counter
    rows = draw_rows(case, engine, options.rows)
    stretches = [0]
    for before, after in pairwise(rows):
        stretches.append(stretches[-1] + (before[0] is not after[0]))
    # Each stretch is a task of its own to the engine, though weights repeat.
    loaded = {
        stretch: task.load(engine)
        for stretch, (task, _) in dict(zip(stretches, rows, strict=True)).items()
    }
    bare = without_pet(loaded[0])
    packed = [EngineRow(loaded[s], ids) for s, (_, ids) in zip(stretches, rows, strict=True)]
    plain = [EngineRow(bare, ids) for _, ids in rows]
    expected = peer.run(rows)
    worst = max(
        float(np.abs(a - b).max()) for a, b in zip(engine.run(packed), expected, strict=True)
    )
    if worst > TOLERANCE:
        raise AssertionError(f"{case}: logits differ by {worst}")
    engine.run(plain)
    times_s: dict[str, list[float]] = {"ours": [], "peer": [], "plain": []}
    work: dict[str, Callable[[], object]] = {
        "ours": lambda: engine.run(packed),
        "peer": lambda: peer.run(rows),
        "plain": lambda: engine.run(plain),
    }
    for _ in range(options.repeats):
        for name, run in work.items():
            torch.set_num_threads(options.threads)
            started_s = clock()
            run()
            times_s[name].append(clock() - started_s)
    num_tokens = sum(len(ids) for _, ids in rows)
    medians_s = {name: statistics.median(values) for name, values in times_s.items()}
    ratios = [theirs / ours for theirs, ours in zip(times_s["peer"], times_s["ours"], strict=True)]
    return {
        "backbone": case.backbone,
        "workload": case.workload,
        "tasks": case.tasks,
        "pets": case.pets,
        "tokens": num_tokens,
        "tokens_per_s": round(num_tokens / medians_s["ours"]),
        "transformers_tokens_per_s": round(num_tokens / medians_s["peer"]),
        "ratio": round(statistics.median(ratios), 2),
        "ratio_least": round(min(ratios), 2),
        "share_of_plain": round(medians_s["plain"] / medians_s["ours"], 2),
        "max_difference": worst,
    }


def cases() -> list[Case]:
    """All tables: the mix of kinds for 1, 8 and 64 tasks, then each kind for 8."""
    mixes = [
        Case(backbone, workload, tasks, KINDS if tasks > 1 else ("lora",))
        for backbone in ("minilm-l3", "minilm-l6")
        for workload in WORKLOADS
        for tasks in GOALS
    ]
    return mixes + [
        Case("minilm-l6", workload, 8, (kind,)) for workload in WORKLOADS for kind in KINDS
    ]


def goals_of(rows: Sequence[dict[str, Any]]) -> list[Goal]:
    """The least ratio of all rows with so many tasks; those left out by --only are not judged."""
    return [
        Goal(
            f"engine-over-padded-transformers-{tasks}-tasks",
            target,
            min(ratios),
            "ratio of tokens/s, the least of all rows",
        )
        for tasks, target in GOALS.items()
        if (ratios := [row["ratio"] for row in rows if row["tasks"] == tasks])
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="", help="backbone/workload/tasks/pets, any prefix")
    options = parser.parse_args()
    store = BackboneStore(load_settings().models_dir)
    rows: list[dict[str, Any]] = []
    built: dict[str, tuple[Engine, Peer]] = {}
    for case in cases():
        label = f"{case.backbone}/{case.workload}/{case.tasks}/{case.pets}"
        if not label.startswith(options.only):
            continue
        if case.backbone not in built:
            folder = store.fetch(case.backbone)
            engine = Engine(Backbone.load(folder), threads=options.threads)
            built = {case.backbone: (engine, Peer(folder))}
        rows.append(measure(case, *built[case.backbone], options))
        if not options.json:
            row = rows[-1]
            print(
                f"{label:32} {row['tokens']:6} tokens {row['tokens_per_s']:8} /s, transformers "
                f"{row['transformers_tokens_per_s']:7} /s, ratio {row['ratio']:5.2f}, "
                f"of the plain backbone's speed {row['share_of_plain']:4.2f}",
                flush=True,
            )
    if options.json:
        setup = {
            "rows": options.rows,
            "repeats": options.repeats,
            "threads": options.threads,
            "clock": "CPU time" if options.threads == 1 else "wall time",
            "dtype": "float32",
        }
        print(json.dumps(make_document(rows, goals_of(rows)) | {"setup": setup}))


if __name__ == "__main__":
    main()
