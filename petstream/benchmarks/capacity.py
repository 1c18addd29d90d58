"""How many tasks a budget of memory holds, beside whole models and PetS (its table 5).

Tasks are loaded by a worker's own task manager until its budget is full. All bytes are of the PETs
alone, as PetS has no heads. What a card of 32 GB would hold is extrapolated: bytes per task do not
depend on how many there are.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

from petstream.benchmarks.capacity_cell import LoadedTasks, load_tasks, model_bytes, write_tasks
from petstream.benchmarks.document import Goal
from petstream.benchmarks.pet_sizes import (
    KINDS_OF_PETS,
    PET_OF,
    SHAPES,
    PetKind,
    ShapeName,
    bytes_in_pets,
    mix_bytes_in_pets,
)

CARD_BYTES = 32 * 10**9
"""Of the V100 of PetS's table 5."""
_NUM_SEEDS = 2
"""Different tasks of a kind; of each kind of the mix, one."""


class Published(NamedTuple):
    """What PetS reports for its card of 32 GB."""

    full_models: int
    """One whole model for each task (its baseline, whose copies share their embeddings)."""
    tasks: int


PUBLISHED: dict[ShapeName, Published] = {
    "distilbert": Published(170, 4344),
    "bert-base": Published(85, 2164),
    "bert-large": Published(25, 560),
}


@dataclass(frozen=True, slots=True)
class CapacityRow:
    """One shape and kind. Bytes are those of one task, without its head."""

    shape: ShapeName
    kind: PetKind | Literal["mix"]
    budget_bytes: int
    tasks: int
    """Loaded into the budget."""
    accounted_bytes: int
    """As the worker counts against its budget."""
    measured_bytes: int
    """As the process grew: its anonymous memory."""
    rows_answered: int
    """Of two rows run through the engine afterwards, of the first and of the last task."""
    full_model_bytes: int
    """Measured, the mean of two that were loaded."""
    full_models: int
    """In the same budget, by division."""
    pets_bytes: int | None
    """None: PetS does not have the kind."""
    pets_tasks: int | None
    """In the same budget, by division."""
    bytes_over_pets: float | None
    """The larger of accounted and measured, over PetS's."""
    tasks_in_32_gb: int
    """Extrapolated: beside one backbone."""
    tasks_in_bytes_of_pets: int | None
    """Extrapolated: in the memory that PetS's tasks take at its published count. Mix only."""
    published_tasks: int | None
    """By PetS in 32 GB. Mix only, as are the published full models."""
    published_full_models: int | None


def measure_capacity(
    shapes: Sequence[ShapeName],
    kinds: Sequence[PetKind | Literal["mix"]],
    budget_bytes: int,
    on_cell: Callable[[], None] = lambda: None,
) -> list[CapacityRow]:
    """Measure each kind on each shape, every cell in a process of its own.

    Args:
        shapes: Of the backbones.
        kinds: Of PETs, or PetS's mix of four.
        budget_bytes: For the tasks' memory.
        on_cell: Told of each cell that is done.

    Raises:
        CapacityError: If the budget is too small to measure in.
    """
    rows = []
    for shape in shapes:
        with (
            TemporaryDirectory(prefix="petstream-capacity-") as folder,
            # A process for each call: what one leaves in its allocator does not count for the next.
            ProcessPoolExecutor(
                1, mp_context=get_context("spawn"), max_tasks_per_child=1
            ) as processes,
        ):
            full_model_bytes = processes.submit(model_bytes, shape).result()
            for kind in kinds:
                mixed = (KINDS_OF_PETS, 1) if kind == "mix" else ((kind,), _NUM_SEEDS)
                models = write_tasks(Path(folder), shape, *mixed)
                loaded = processes.submit(load_tasks, shape, models, budget_bytes).result()
                rows.append(_row(shape, kind, budget_bytes, loaded, full_model_bytes))
                on_cell()
    return rows


def capacity_goals(rows: Iterable[CapacityRow]) -> list[Goal]:
    """Return a goal for each kind that PetS has, by shape: at most its bytes, or half of them."""
    return [
        Goal(
            id=f"bytes over PetS's, {row.kind} on {row.shape}",
            target=0.5 if row.kind in ("mask", "diff") else 1.0,
            value=row.bytes_over_pets,
            unit="ratio",
            direction="at most",
        )
        for row in rows
        if row.bytes_over_pets is not None
    ]


def as_document_rows(rows: Iterable[CapacityRow]) -> list[dict[str, Any]]:
    """Return the rows as they stand in the JSON document."""
    return [asdict(row) for row in rows]


def _row(
    shape: ShapeName,
    kind: PetKind | Literal["mix"],
    budget_bytes: int,
    loaded: LoadedTasks,
    full_model_bytes: float,
) -> CapacityRow:
    most = max(loaded.accounted_bytes, loaded.measured_bytes)
    if kind == "mix":
        pets: int | None = mix_bytes_in_pets(SHAPES[shape])
        published = PUBLISHED[shape]
    else:
        pets = bytes_in_pets(PET_OF[kind], SHAPES[shape])
        published = None
    return CapacityRow(
        shape=shape,
        kind=kind,
        budget_bytes=budget_bytes,
        tasks=loaded.num_tasks,
        accounted_bytes=round(loaded.accounted_bytes),
        measured_bytes=round(loaded.measured_bytes),
        rows_answered=loaded.rows_answered,
        full_model_bytes=round(full_model_bytes),
        full_models=int(budget_bytes // full_model_bytes),
        pets_bytes=pets,
        pets_tasks=None if pets is None else budget_bytes // pets,
        bytes_over_pets=None if pets is None else round(most / pets, 3),
        tasks_in_32_gb=int((CARD_BYTES - full_model_bytes) // most),
        tasks_in_bytes_of_pets=(
            None if published is None or pets is None else int(published.tasks * pets // most)
        ),
        published_tasks=None if published is None else published.tasks,
        published_full_models=None if published is None else published.full_models,
    )
