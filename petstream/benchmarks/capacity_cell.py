"""One cell of the capacity benchmark: load tasks, or whole models, and see what they take.

Each cell is to run in a process of its own, so that what an allocator keeps of one does not count
for another.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from messages.task_event import TaskReference
from petstream.benchmarks.pet_sizes import PET_OF, SHAPES, PetKind, ShapeName
from petstream.benchmarks.process_memory import own_bytes
from petstream.benchmarks.synthetic_backbone import DIGEST, random_backbone
from petstream.benchmarks.task_copies import copy_under
from tasks.artifact import open_artifact
from tasks.artifact_writer import TrainedLevel, write_artifact
from tasks.description import BackboneReference
from tasks.errors import TaskError
from tasks.pets.random_weights import random_floats, random_weights
from tasks.store import TaskStore
from workers.engine import Engine, EngineRow
from workers.loaded_task import LoadedTask
from workers.task_manager import TaskManager
from workers.task_tensors import tensors_within

_NUM_LABELS = 2
_NUM_MODELS = 2
"""Whole models that are loaded; how many more fit is by division."""
_ROW_LEN = 16


class CapacityError(Exception):
    """Nothing can be counted: the message says what to change."""


@dataclass(frozen=True, slots=True)
class LoadedTasks:
    """What a budget held. Bytes are those of the PETs: without the heads."""

    num_tasks: int
    accounted_bytes: float
    """Of a task, as the worker counts."""
    measured_bytes: float
    """Of a task, as the process grew."""
    rows_answered: int


def write_tasks(
    folder: Path, shape_name: ShapeName, kinds: Sequence[PetKind], num_seeds: int
) -> list[Path]:
    """Write random tasks of these kinds, `num_seeds` of each, where they are not there yet.

    Returns:
        Their folders, each kind's first before each kind's second.
    """
    shape = SHAPES[shape_name]
    folders = []
    for seed in range(num_seeds):
        for kind in kinds:
            path = folder / f"{kind.replace('_', '-')}-{seed}" / "1"
            folders.append(path)
            if path.exists():
                continue
            path.parent.mkdir()
            rng = np.random.default_rng(seed)
            pet = PET_OF[kind]
            level = TrainedLevel(
                level=0,
                backbone=BackboneReference(name=shape_name, digest=DIGEST),
                shape=shape,
                pet=pet,
                pooling="mean",
                max_tokens=128,
                head_weight=random_floats(rng, 0.3, _NUM_LABELS, shape.hidden_size),
                head_bias=random_floats(rng, 0.3, _NUM_LABELS),
                tensors=random_weights(pet, shape, rng),
            )
            write_artifact(
                path,
                name=path.parent.name,
                kind="single_label",
                labels=[f"label-{number}" for number in range(_NUM_LABELS)],
                takes_pair=False,
                source="random",
                licence="none",
                levels=[level],
            )
    return folders


def load_tasks(shape_name: ShapeName, models: Sequence[Path], budget_bytes: int) -> LoadedTasks:
    """Load tasks as a worker does, until the next round of them would not fit.

    A round is a task of each model, under a name of its own. Memory is measured from behind the
    first round: what that costs besides is the process's, not the tasks'.

    Args:
        shape_name: Of the backbone that they run on.
        models: Folders of tasks, on one file system.
        budget_bytes: What the worker may hold.

    Raises:
        CapacityError: If not two rounds fit, or a task cannot be loaded.
    """
    engine = Engine(random_backbone(SHAPES[shape_name], seed=0), threads=1)
    with tempfile.TemporaryDirectory(dir=models[0].parents[2]) as folder:
        store = TaskStore(Path(folder))
        manager = TaskManager(store, engine, level=0, memory_limit_bytes=budget_bytes)
        try:
            return _fill(_Rounds(store, manager, models), engine, budget_bytes)
        finally:
            manager.close()
            engine.close()


def model_bytes(shape_name: ShapeName) -> float:
    """Load whole models, as a fine-tuned copy for each task would be; return what one takes."""
    before = own_bytes()
    models = [random_backbone(SHAPES[shape_name], seed) for seed in range(_NUM_MODELS)]
    return (own_bytes() - before) / len(models)


class _Rounds:
    """Loads rounds of tasks through a worker's task manager."""

    def __init__(self, store: TaskStore, manager: TaskManager, models: Sequence[Path]) -> None:
        self._store = store
        self._manager = manager
        self._models = [open_artifact(path) for path in models]
        self._round = 0
        self.references: list[TaskReference] = []
        """In the order in which they were loaded."""

    def load_next(self) -> None:
        """Load one task of each model.

        Raises:
            CapacityError: If one cannot be had.
        """
        for number, model in enumerate(self._models):
            name = f"task-{self._round}-{number}"
            artifact = copy_under(name, model, self._store.root)
            self.references.append(TaskReference(name, 1, artifact.digest))
            with self.held(self.references[-1:]):
                pass
        self._round += 1

    @contextmanager
    def held(self, references: Sequence[TaskReference]) -> Iterator[list[LoadedTask]]:
        """Hold tasks in memory.

        Raises:
            CapacityError: If one cannot be had.
        """
        with self._manager.acquire_all(references) as found:
            tasks = []
            for task in found:
                if isinstance(task, TaskError):
                    raise CapacityError(f"{task}; here that is --budget-mib")
                tasks.append(task)
            yield tasks

    @property
    def used_bytes(self) -> int:
        """What the worker counts, of all tasks that it holds."""
        return self._manager.host_bytes

    @property
    def num_held(self) -> int:
        """How many tasks are in memory."""
        return len(self._manager.contents())


def _fill(rounds: _Rounds, engine: Engine, budget_bytes: int) -> LoadedTasks:
    rounds.load_next()
    of_round = len(rounds.references)
    round_bytes, before_bytes = rounds.used_bytes, own_bytes()
    if 2 * round_bytes > budget_bytes:
        raise CapacityError(
            f"{of_round} tasks take {round_bytes} bytes and the budget is {budget_bytes}: it must "
            f"hold twice as many, so that their memory can be measured; raise --budget-mib"
        )
    while rounds.used_bytes + round_bytes <= budget_bytes:
        rounds.load_next()
    num_tasks = len(rounds.references)
    accounted_bytes = rounds.used_bytes / num_tasks
    grown_bytes = own_bytes() - before_bytes
    with rounds.held([rounds.references[0], rounds.references[-1]]) as tasks:
        head_bytes = sum(tensor.nbytes for tensor in tensors_within(tasks[0].ops.head))
        rows_answered = _answer(engine, tasks)
    rounds.load_next()
    if rounds.num_held >= num_tasks + of_round:
        raise CapacityError(
            f"{rounds.num_held} tasks are in memory, counted were {num_tasks}: the worker's own "
            f"account of its budget differs"
        )
    return LoadedTasks(
        num_tasks=num_tasks,
        accounted_bytes=accounted_bytes - head_bytes,
        measured_bytes=grown_bytes / (num_tasks - of_round) - head_bytes,
        rows_answered=rows_answered,
    )


def _answer(engine: Engine, tasks: Sequence[LoadedTask]) -> int:
    """Run a row of each task; return how many gave the logits of their labels."""
    rng = np.random.default_rng(0)
    token_ids = rng.integers(1, engine.backbone.shape.vocab_size, _ROW_LEN)
    logits = engine.run([EngineRow(task, token_ids) for task in tasks])
    return sum(row.shape == (_NUM_LABELS,) and bool(np.isfinite(row).all()) for row in logits)
