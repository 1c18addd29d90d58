"""`petstream bench capacity`: how many tasks a memory holds, beside PetS."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

import typer
from rich.box import SIMPLE
from rich.table import Table

from petstream.benchmarks.document import make_document
from petstream.benchmarks.pet_sizes import KINDS_OF_PETS, PET_OF, SHAPE_NAMES, PetKind
from petstream.output import console, counting_bar, fail, print_json

Kind = Literal[PetKind, "mix"]
_DEFAULT_KINDS: tuple[Kind, ...] = (*KINDS_OF_PETS, "mix")
_KINDS: tuple[Kind, ...] = (*PET_OF, "mix")
_Name = TypeVar("_Name", bound=str)
_MIB = 1 << 20


def capacity(
    budget_mib: Annotated[
        int, typer.Option(min=1, help="Memory for tasks; PetS's card has 32 GB.")
    ] = 512,
    shape: Annotated[
        list[str] | None,
        typer.Option(help=f"Of the backbone: {', '.join(SHAPE_NAMES)}; repeatable. Default: all."),
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Of PET: {', '.join(_KINDS)}; repeatable. Default: {', '.join(_DEFAULT_KINDS)}."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Count the tasks that a budget of memory holds, by really loading them.

    Beside it: whole models in the same budget, and the bytes and counts of PetS.

    Example: petstream bench capacity --shape bert-base --kind diff --kind mix
    """
    shapes = _chosen(shape, SHAPE_NAMES, "--shape") or list(SHAPE_NAMES)
    kinds = _chosen(kind, _KINDS, "--kind") or list(_DEFAULT_KINDS)
    try:
        from petstream.benchmarks.capacity import (
            as_document_rows,
            capacity_goals,
            measure_capacity,
        )
        from petstream.benchmarks.capacity_cell import CapacityError
    except ModuleNotFoundError as error:
        fail(f"measuring needs the engine ({error.name} is missing): pip install petstream[worker]")
    with counting_bar("cells of shape and kind", len(shapes) * len(kinds)) as on_cell:
        try:
            rows = measure_capacity(shapes, kinds, budget_mib * _MIB, on_cell)
        except CapacityError as error:
            fail(str(error))
    document = make_document(as_document_rows(rows), capacity_goals(rows))
    if as_json:
        print_json(document)
    else:
        _print(document, budget_mib)


def _chosen(given: list[str] | None, known: Sequence[_Name], option: str) -> list[_Name]:
    """Return those that are given, in the order of those that are known."""
    unknown = sorted(set(given or ()) - set(known))
    if unknown:
        fail(f"{option} {unknown[0]} is not known: choose from {', '.join(known)}", code=2)
    return [name for name in known if name in (given or ())]


def _print(document: dict[str, Any], budget_mib: int) -> None:
    table = Table(
        box=SIMPLE,
        padding=(0, 1, 0, 0),
        caption="MB of a task without its head, as the process grew; 32 GB: extrapolated.",
    )
    for heading in ("backbone", "kind"):
        table.add_column(heading, no_wrap=True)
    for heading in ("tasks", "MB", "PetS MB", "ratio", "models", "32 GB", "PetS 32 GB"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in document["rows"]:
        pets_bytes = row["pets_bytes"]
        figures = (
            f"{row['tasks']:,}",
            f"{row['measured_bytes'] / 1e6:.3f}",
            "-" if pets_bytes is None else f"{pets_bytes / 1e6:.3f}",
            "-" if pets_bytes is None else f"{row['bytes_over_pets']:.3f}",
            f"{row['full_models']:,}",
            f"{row['tasks_in_32_gb']:,}",
            "-" if row["published_tasks"] is None else f"{row['published_tasks']:,}",
        )
        table.add_row(row["shape"], row["kind"], *figures)
    console.print(table)
    console.print(
        f"Budget: {budget_mib} MiB for tasks; PetS's card has 32 GB. {document['device']}",
        soft_wrap=True,
        highlight=False,
    )
    missed = [goal["id"] for goal in document["goals"] if not goal["met"]]
    console.print(f"Goals missed: {', '.join(missed) or 'none'}", soft_wrap=True, highlight=False)
