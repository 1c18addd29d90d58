"""The memory of tasks while serving: what adding, holding and having registered many of them costs.

    python benchmarks/bench_task_manager.py [--json] [--only first,beside,steady,start]

first    From the event of a new task at the worker to its first answer, for each kind of PET, and
         the same query again.
beside   A steady stream of batches through the stage at half load, without and with new tasks
         being loaded in the background: ten a second, and without pause. Short stretches of each
         alternate, so that other work on the machine meets all alike.
steady   2,000 tasks asked for by a Zipf law under a budget that holds a tenth of them; every
         answer is checked.
start    Real processes on a real broker: time from their start until they are ready, and
         resident memory, with 0, 100 and 10,000 tasks registered of which 50 are in use; every
         one of these is asked.
"""

import argparse
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from benchmarks.many_tasks import make_tasks
from benchmarks.many_tasks_start import measure_starts
from messages.answer_codec import decode_answer
from messages.batch import Batch, BatchRow
from messages.batch_codec import encode_batch
from messages.origin import Origin
from messages.original_record import OriginalRecord
from messages.query import QueryParameters
from messages.reply import ReplyAddress
from messages.result import Result
from messages.task_event import TaskReference
from messages.task_event_codec import encode_task_event
from messages.topics import TopicNames
from petstream.benchmarks.document import Goal, make_document
from petstream.settings import load_settings
from tasks.artifact import Artifact
from tasks.registry import add_revision, revision_of
from tasks.store import TaskStore
from transport.records import Record
from workers.backbone import Backbone
from workers.backbone_store import find
from workers.engine import Engine
from workers.levels import LEVEL_BACKBONES
from workers.registered_tasks import RegisteredTasks
from workers.stage import WorkerStage
from workers.task_manager import TaskManager

KINDS = ("lora", "ia3", "bitfit", "houlsby", "pfeiffer", "mask", "diff")
NEW_TASKS = 12
"""Of each kind, in turn, the first of which may find things that are made once."""
BATCH_ROWS = BATCH_TASKS = 2
LOADS = (
    ("ten a second", 0.1, KINDS),
    ("ten a second", 0.1, ("mask",)),
    ("without pause", 0.0, KINDS),
)
"""How new tasks come: pace, seconds from one to the next, kinds in turn."""
STRETCH_S = 1.0
STEADY_TASKS, STEADY_GROUPS, STEADY_BATCHES, STEADY_ROWS = 2_000, 8, 1_000, 8
STEADY_BUDGET_SHARE = 0.1
TOLERANCE = 1e-4


class Serving:
    """One worker without Kafka: stage, tasks and the follower of their events."""

    def __init__(self, root: Path, backbone_folder: Path, limit_bytes: int = 1 << 30) -> None:
        self.topics = TopicNames("bench")
        self.root = root
        self.engine = Engine(Backbone.load(backbone_folder))
        self.tasks = TaskManager(
            TaskStore(root), self.engine, level=0, memory_limit_bytes=limit_bytes
        )
        self.registered = RegisteredTasks(self.tasks, [], [])
        self.registered.start(0)
        self._stage = WorkerStage(
            level=0,
            engine=self.engine,
            tasks=self.tasks,
            backbone_folder=backbone_folder,
            topics=self.topics,
        )
        self._rng = np.random.default_rng(3)

    def make(self, names: Sequence[str], variant: str, seed: int = 0) -> list[Artifact]:
        """Put tasks of a kind into the store."""
        return make_tasks(self.root, names, variant, [self.engine.backbone], seed)

    def same_rows(self, artifacts: Sequence[Artifact]) -> Record:
        """Return a batch of one and the same row for each of these tasks."""
        return self._batch(artifacts, [np.arange(2000, 2016)] * len(artifacts))

    def batch(self, artifacts: Sequence[Artifact], num_rows: int) -> Record:
        """Return a batch of rows of these tasks in turn, some 16 tokens each."""
        lens = np.clip(self._rng.normal(16, 6, num_rows).astype(np.int64), 4, 64)
        return self._batch(artifacts, [self._rng.integers(1000, 30000, size) for size in lens])

    def _batch(self, artifacts: Sequence[Artifact], ids: Sequence[NDArray[np.int64]]) -> Record:
        rows = tuple(
            BatchRow(
                origin=Origin(self.topics.queries, "", 0, number),
                query_id=f"q{number}",
                task_index=number % len(artifacts),
                token_ids=row.astype("<u4").tobytes(),
                text="text",
                text_pair=None,
                parameters=QueryParameters(),
                reply=ReplyAddress(key=b"k", encoding="json"),
                original=OriginalRecord(b"text", ()),
                input_digest=b"12345678",
                appended_ms=0,
                timings_ms=(),
            )
            for number, row in enumerate(ids)
        )
        batch = Batch(
            batch_id="b",
            level=0,
            backbone=self.engine.backbone.name,
            policy="bench",
            created_ms=0,
            tasks=tuple(reference_of(artifact) for artifact in artifacts),
            rows=rows,
        )
        return Record(self.topics.batches(0), 0, 0, None, encode_batch(batch).value, (), 0)

    def answer(self, batch: Record) -> list[Result]:
        """Run a batch; every row must be answered with a result."""
        answers = [decode_answer(r.value, r.headers) for r in self._stage.process([batch])]
        results = [answer for answer in answers if isinstance(answer, Result)]
        if len(results) < len(answers):
            raise AssertionError(answers)
        return results

    def register(self, artifact: Artifact) -> None:
        """Hear the event of a task, as from the topic."""
        event = add_revision(None, revision_of(artifact))
        self.registered.apply(event.name.encode(), encode_task_event(event).value)

    def close(self) -> None:
        """Stop the threads."""
        self.tasks.close()
        self.engine.close()


def reference_of(artifact: Artifact) -> TaskReference:
    """Return what a batch calls the task."""
    description = artifact.description
    return TaskReference(description.name, description.revision, artifact.digest)


@contextmanager
def serving(backbone: str, limit_bytes: int = 1 << 30) -> Iterator[Serving]:
    """Serve in a folder of its own for the block."""
    with tempfile.TemporaryDirectory() as folder:
        served = Serving(Path(folder), find(backbone, load_settings().models_dir), limit_bytes)
        try:
            yield served
        finally:
            served.close()


def measure_first(backbone: str) -> list[dict[str, Any]]:
    """Time new tasks from their event to their first answer; the kinds take turns."""
    times_ms: dict[str, list[float]] = {kind: [] for kind in KINDS}
    again_ms: dict[str, list[float]] = {kind: [] for kind in KINDS}
    cpu_ms: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with serving(backbone) as served:
        warm = served.make(["warm"], "bitfit")
        served.answer(served.batch(warm, 1))
        made = {
            kind: served.make([f"{kind}-{number}" for number in range(NEW_TASKS)], kind)
            for kind in KINDS
        }
        for number in range(NEW_TASKS):
            for kind in KINDS:
                artifact = made[kind][number]
                batch = served.batch([artifact], 1)
                started_s, started_cpu_s = time.perf_counter(), time.process_time()
                served.register(artifact)
                (result,) = served.answer(batch)
                times_ms[kind].append(1000 * (time.perf_counter() - started_s))
                cpu_ms[kind].append(1000 * (time.process_time() - started_cpu_s))
                assert result.task == artifact.description.name
                started_s = time.perf_counter()
                served.answer(batch)
                again_ms[kind].append(1000 * (time.perf_counter() - started_s))
    return [
        {
            "part": "first",
            "backbone": backbone,
            "pet": kind,
            "median_ms": statistics.median(times),
            "max_ms": max(times),
            "very_first_ms": times[0],
            "cpu_median_ms": statistics.median(cpu_ms[kind]),
            "again_median_ms": statistics.median(again_ms[kind]),
        }
        for kind, times in times_ms.items()
    ]


class Adding:
    """A thread that lets new tasks be registered at a pace, and forgets them again."""

    def __init__(self, served: Serving) -> None:
        self._served = served
        self._made = {
            kind: served.make([f"new-{kind}-{n}" for n in range(64)], kind) for kind in KINDS
        }
        self.num_loads = 0

    @contextmanager
    def at(self, kinds: Sequence[str], pace_s: float) -> Iterator[None]:
        """Add tasks of these kinds in turn while the block runs."""
        stop = threading.Event()
        thread = threading.Thread(target=self._run, args=(kinds, pace_s, stop))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _run(self, kinds: Sequence[str], pace_s: float, stop: threading.Event) -> None:
        while not stop.is_set():
            started_s = time.perf_counter()
            made = self._made[kinds[self.num_loads % len(kinds)]]
            reference = reference_of(made[self.num_loads % len(made)])
            self._served.tasks.preload(reference).result()
            self._served.tasks.retire(reference.name)
            self.num_loads += 1
            stop.wait(max(0.0, pace_s - (time.perf_counter() - started_s)))


def measure_beside(backbone: str, rounds: int) -> list[dict[str, Any]]:
    """Compare the stream's batches without loads and beside them."""
    rows = []
    with serving(backbone) as served:
        in_use = [
            artifact
            for kind in KINDS[:BATCH_TASKS]
            for artifact in served.make([f"{kind}-in-use"], kind)
        ]
        batch = served.batch(in_use, BATCH_ROWS)
        adding = Adding(served)
        run_stream(served, batch, 1.0, 0.0)
        period_s = 2 * statistics.median(run_stream(served, batch, 2.0, 0.0)) / 1000
        for pace, pace_s, kinds in LOADS:
            alone: list[float] = []
            beside: list[float] = []
            adding.num_loads = 0
            for _ in range(rounds):
                alone += run_stream(served, batch, STRETCH_S, period_s)
                with adding.at(kinds, pace_s):
                    beside += run_stream(served, batch, STRETCH_S, period_s)
            rows.append(
                {
                    "part": "beside",
                    "backbone": backbone,
                    "pet": kinds[0] if len(kinds) == 1 else "all in turn",
                    "pace": pace,
                    "loads": adding.num_loads,
                    "batches": len(beside),
                    "period_ms": 1000 * period_s,
                    **_percentiles("alone", alone),
                    **_percentiles("beside", beside),
                    "added_p50_ms": statistics.median(beside) - statistics.median(alone),
                    "added_p99_ms": _p99(beside) - _p99(alone),
                }
            )
    return rows


def run_stream(served: Serving, batch: Record, seconds: float, period_s: float) -> list[float]:
    """Run a batch every period; return how long each took, milliseconds."""
    times_ms = []
    due_s = time.perf_counter()
    end_s = due_s + seconds
    while due_s < end_s:
        time.sleep(max(0.0, due_s - time.perf_counter()))
        started_s = time.perf_counter()
        served.answer(batch)
        ended_s = time.perf_counter()
        times_ms.append(1000 * (ended_s - started_s))
        due_s = max(due_s + period_s, ended_s)
    return times_ms


def _p99(values: Sequence[float]) -> float:
    return float(np.percentile(values, 99))


def _percentiles(name: str, times_ms: Sequence[float]) -> dict[str, float]:
    return {f"{name}_p50_ms": statistics.median(times_ms), f"{name}_p99_ms": _p99(times_ms)}


def measure_steady(backbone: str) -> list[dict[str, Any]]:
    """Ask for many tasks under a small budget; check that every row gets its own task's answer."""
    groups = {f"group{seed}": ("bitfit", "ia3")[seed % 2] for seed in range(STEADY_GROUPS)}
    per_group = STEADY_TASKS // STEADY_GROUPS
    with serving(backbone) as ample:
        # The tasks of a group have the same weights, so what each must answer is known.
        expected = {}
        for seed, (group, kind) in enumerate(groups.items()):
            (result,) = ample.answer(ample.same_rows(ample.make([group], kind, seed)))
            expected[group] = dict(zip(result.labels, result.scores, strict=True))
        budget_bytes = int(STEADY_BUDGET_SHARE * per_group * ample.tasks.host_bytes)
    process = psutil.Process()
    with serving(backbone, budget_bytes) as served:
        tasks = [
            task
            for seed, (group, kind) in enumerate(groups.items())
            for task in served.make([f"{group}-{n}" for n in range(per_group)], kind, seed)
        ]
        rng = np.random.default_rng(1)
        rng.shuffle(tasks)
        chances = 1 / np.arange(1, len(tasks) + 1)
        drawn = rng.choice(len(tasks), (STEADY_BATCHES, STEADY_ROWS), p=chances / chances.sum())
        hits, num_asks, worst = 0, 0, 0.0
        times_ms: list[float] = []
        resident: list[int] = []
        for numbers in drawn:
            asked = [tasks[number] for number in dict.fromkeys(numbers.tolist())]
            here = {reference for reference, _ in served.tasks.contents()}
            hits += sum(reference_of(task) in here for task in asked)
            num_asks += len(asked)
            batch = served.same_rows(asked)
            started_s = time.perf_counter()
            results = served.answer(batch)
            times_ms.append(1000 * (time.perf_counter() - started_s))
            for task, result in zip(asked, results, strict=True):
                name = task.description.name
                assert result.task == name
                wanted = expected[name.partition("-")[0]]
                given = zip(result.labels, result.scores, strict=True)
                worst = max(worst, *(abs(score - wanted[label]) for label, score in given))
            assert served.tasks.host_bytes <= budget_bytes
            resident.append(process.memory_info().rss)
    assert worst < TOLERANCE
    return [
        {
            "part": "steady",
            "backbone": backbone,
            "tasks": len(tasks),
            "asked_tasks": len(set(drawn.ravel().tolist())),
            "asks": num_asks,
            "hit_rate": hits / num_asks,
            "budget_mib": budget_bytes / 2**20,
            "resident_mib_after_a_fifth": resident[len(resident) // 5] / 2**20,
            "resident_mib_end": resident[-1] / 2**20,
            "resident_mib_max": max(resident) / 2**20,
            "worst_difference_of_scores": worst,
            **_percentiles("batch", times_ms),
        }
    ]


PARTS: dict[str, Callable[[argparse.Namespace], list[dict[str, Any]]]] = {
    "first": lambda options: [
        row for backbone in LEVEL_BACKBONES.values() for row in measure_first(backbone)
    ],
    "beside": lambda options: measure_beside(LEVEL_BACKBONES[0], options.rounds),
    "steady": lambda options: measure_steady(LEVEL_BACKBONES[0]),
    "start": lambda options: measure_starts(load_settings(), options.starts),
}


def goals_of(rows: Sequence[dict[str, Any]]) -> list[Goal]:
    """Judge the worst rows; parts that were left out are not judged."""
    goals = []
    first = [row["max_ms"] for row in rows if row["part"] == "first"]
    if first:
        goals.append(Goal("task-first-answer", 100.0, max(first), "ms, the slowest", "at most"))
    beside = [
        row["added_p99_ms"]
        for row in rows
        if row["part"] == "beside" and row["pace"] == "ten a second"
    ]
    if beside:
        goals.append(
            Goal("task-load-delays-others", 10.0, max(beside), "ms, worst added p99", "at most")
        )
    starts = [row for row in rows if row["part"] == "start" and row["process"] == "worker"]
    if starts:
        few, many = (min(starts, key=_registered), max(starts, key=_registered))
        goals.append(
            Goal(
                "worker-start-with-10000-tasks",
                1.2,
                many["start_s"] / few["start_s"],
                "times that with none registered",
                "at most",
            )
        )
    return goals


def _registered(row: dict[str, Any]) -> int:
    return int(row["registered"])


def main() -> None:
    """Print the figures for people, or one JSON document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, by commas")
    parser.add_argument("--rounds", type=int, default=10, help="stretches of each, beside")
    parser.add_argument("--starts", type=int, default=3, help="of each process")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for part in options.only.split(","):
        found = PARTS[part](options)
        rows += found
        if not options.json:
            for row in found:
                print(", ".join(f"{k} {_short(v)}" for k, v in row.items()), flush=True)
    document = make_document(rows, goals_of(rows))
    if options.json:
        print(json.dumps(document))
        return
    for goal in document["goals"]:
        print(f"{goal['id']}: {goal['value']:.2f} {goal['unit']} (goal {goal['target']}, "
              f"met: {goal['met']})")  # fmt: skip


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
